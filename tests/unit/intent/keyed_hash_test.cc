// A keyed hash is HMAC-SHA256, whatever the length of the key and of what is hashed, and from any thread.
#include "server/intent/keyed_hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace userintent::intent {
namespace {

ledger::Digest OfOpenSsl(const std::string& key, const std::string& bytes) {
  ledger::Digest digest{};
  unsigned size = 0;
  EXPECT_NE(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                 reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data(), &size),
            nullptr);
  EXPECT_EQ(size, digest.size());
  return digest;
}

TEST(KeyedHash, IsHmac) {
  std::mt19937 random(1);
  const auto bytes = [&random](size_t size) {
    std::string made(size, '\0');
    for (char& byte : made) byte = static_cast<char>(random());
    return made;
  };
  for (const size_t key_size : {1U, 31U, 32U, 63U, 64U, 65U, 128U, 300U}) {
    const std::string key = bytes(key_size);
    const KeyedHash hash{Secret(std::string(key))};
    for (const size_t size : {0U, 1U, 40U, 55U, 56U, 63U, 64U, 65U, 1000U}) {
      const std::string domain = bytes(5), one = bytes(size), two = bytes(size / 2);
      EXPECT_EQ(hash.Of(domain, std::string_view(one), std::string_view(two)),
                OfOpenSsl(key, absl::StrCat(domain, std::string(1, '\0'), one, two)))
          << key_size << ", " << size;
    }
  }
}

TEST(KeyedHash, ThreadsMayShareOne) {
  const KeyedHash hash{Secret(std::string(32, 'k'))};
  const auto all = [&hash] {
    std::vector<ledger::Digest> digests;
    for (int i = 0; i < 2000; ++i) digests.push_back(hash.Of("test", std::string_view(std::to_string(i))));
    return digests;
  };
  const std::vector<ledger::Digest> expected = all();
  std::vector<std::vector<ledger::Digest>> got(4);
  std::vector<std::thread> threads;
  for (auto& one : got) threads.emplace_back([&one, &all] { one = all(); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& one : got) EXPECT_EQ(one, expected);
}

}  // namespace
}  // namespace userintent::intent
