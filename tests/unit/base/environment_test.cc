#include "server/base/environment.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace userintent {
namespace {

// The process's list of what was taken out grows with each call, so one test makes them all.
TEST(Environment, WhatLibrariesWouldHeedIsTakenOutAndNamedWithoutItsValue) {
  std::vector<std::string> entries = {"PATH=/bin",
                                      "GRPC_TRACE=all",
                                      "GRPCX=1",
                                      "USERINTENT_GRPC_TRACE=x",
                                      "GRPC_NEW\x01Z=secret",
                                      "SSLKEYLOGFILE=/x",
                                      "GRPC_",
                                      "OPENSSL_CONF=/y",
                                      "GRPC_SSL_CIPHER_SUITES=x",
                                      "OPENSSL_CONFIG=z",
                                      "OPENSSL_ia32cap=1",
                                      "http_proxy=h",
                                      "https_proxyx=h",
                                      "HTTPS_PROXY=",
                                      "CURL_SSL_BACKEND=gnu",
                                      "=",
                                      "",
                                      "MALLOC_CONF=prof:true",
                                      "HOME=/root"};
  std::vector<char*> environment;
  for (std::string& entry : entries) environment.push_back(entry.data());
  environment.push_back(nullptr);
  EXPECT_TRUE(WhatWasRemoved().empty());

  CleanEnvironment(0, nullptr, environment.data());
  std::vector<std::string> kept;
  for (char** entry = environment.data(); *entry != nullptr; ++entry) kept.emplace_back(*entry);
  EXPECT_EQ(kept, (std::vector<std::string>{"PATH=/bin", "GRPCX=1", "USERINTENT_GRPC_TRACE=x", "OPENSSL_CONFIG=z",
                                            "OPENSSL_ia32cap=1", "https_proxyx=h", "=", "", "HOME=/root"}));
  const std::vector<RemovedVariables> removed = WhatWasRemoved();
  ASSERT_EQ(removed.size(), 4);
  EXPECT_EQ(removed[0].kind, RemovedKind::kPrints);
  EXPECT_EQ(removed[0].names, "GRPC_TRACE, GRPC_NEW\\x01Z, GRPC_");
  EXPECT_EQ(removed[1].names, "SSLKEYLOGFILE, OPENSSL_CONF, GRPC_SSL_CIPHER_SUITES, CURL_SSL_BACKEND");
  EXPECT_EQ(removed[2].names, "http_proxy, HTTPS_PROXY");
  EXPECT_EQ(removed[3].names, "MALLOC_CONF");

  // Many, with long names: the list stays short, and all are gone.
  std::vector<std::string> many;
  for (int i = 0; i < 1000; ++i) many.push_back("GRPC_" + std::string(300, 'A') + std::to_string(i) + "=v");
  environment.clear();
  for (std::string& entry : many) environment.push_back(entry.data());
  environment.push_back(nullptr);
  CleanEnvironment(0, nullptr, environment.data());
  EXPECT_EQ(environment[0], nullptr);
  const std::string names = WhatWasRemoved()[0].names;
  EXPECT_LT(names.size(), 1200);
  EXPECT_TRUE(names.ends_with(", ...")) << names;
  CleanEnvironment(0, nullptr, nullptr);
}

}  // namespace
}  // namespace userintent
