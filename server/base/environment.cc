#include "server/base/environment.h"

#include <cstddef>
#include <iterator>

#include "absl/strings/escaping.h"

namespace userintent {
namespace {

constexpr const char* kWhy[] = {
    "not heeded: they make libgrpc print what calls hold, or change how it works",
    "not heeded: they make libraries write down keys, load code or trust other certificates than the flags say",
    "not heeded: Astra is reached directly",
    "not heeded: the allocator works as it was built",
};

struct Variable {
  const char* name;
  bool beginning;  // every variable that begins so
  RemovedKind kind;
};

constexpr Variable kVariables[] = {
    {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", false, RemovedKind::kTls},
    {"GRPC_NOT_USE_SYSTEM_SSL_ROOTS", false, RemovedKind::kTls},
    {"GRPC_SYSTEM_SSL_ROOTS_DIR", false, RemovedKind::kTls},
    {"GRPC_SSL_CIPHER_SUITES", false, RemovedKind::kTls},
    // GRPC_TRACE and GRPC_VERBOSITY print headers and messages, GRPC_STACKTRACE_MINLOGLEVEL what is on stacks;
    // GRPC_EXPERIMENTS and GRPC_POLL_STRATEGY choose code that nobody has tested here. New ones come with every
    // version, so the whole of them.
    {"GRPC_", true, RemovedKind::kPrints},
    {"SSLKEYLOGFILE", false, RemovedKind::kTls},
    // A file of settings for OpenSSL can lower the least version and the ciphers, and load engines. The system's own
    // file, /etc/ssl/openssl.cnf, counts as ever: it belongs to the image.
    {"OPENSSL_CONF", false, RemovedKind::kTls},
    {"OPENSSL_CONF_INCLUDE", false, RemovedKind::kTls},
    {"OPENSSL_ENGINES", false, RemovedKind::kTls},
    {"OPENSSL_MODULES", false, RemovedKind::kTls},
    {"OPENSSL_TRACE", false, RemovedKind::kTls},
    {"CTLOG_FILE", false, RemovedKind::kTls},
    {"SSL_CERT_FILE", false, RemovedKind::kTls},
    {"SSL_CERT_DIR", false, RemovedKind::kTls},
    {"CURL_", true, RemovedKind::kTls},
    {"http_proxy", false, RemovedKind::kProxy},
    {"https_proxy", false, RemovedKind::kProxy},
    {"all_proxy", false, RemovedKind::kProxy},
    {"no_proxy", false, RemovedKind::kProxy},
    {"grpc_proxy", false, RemovedKind::kProxy},
    {"no_grpc_proxy", false, RemovedKind::kProxy},
    {"HTTP_PROXY", false, RemovedKind::kProxy},
    {"HTTPS_PROXY", false, RemovedKind::kProxy},
    {"ALL_PROXY", false, RemovedKind::kProxy},
    {"NO_PROXY", false, RemovedKind::kProxy},
    // jemalloc can write profiles of the heap into files.
    {"MALLOC_CONF", false, RemovedKind::kMemory},
};

constexpr size_t kKinds = std::size(kWhy);
constexpr size_t kMostShown = 16;
constexpr size_t kLongestShown = 64;

// Into the environment's own strings, which stay where they are.
const char* removed[kKinds][kMostShown];
size_t removed_count[kKinds];

// The variable that an entry of the environment, NAME=VALUE, is; null: none of them.
__attribute__((no_sanitize("address", "thread", "undefined"))) const Variable* Find(const char* entry) {
  for (const Variable& variable : kVariables) {
    size_t at = 0;
    while (variable.name[at] != '\0' && variable.name[at] == entry[at]) ++at;
    if (variable.name[at] == '\0' && (variable.beginning || entry[at] == '=')) return &variable;
  }
  return nullptr;
}

std::string NameOf(const char* entry) {
  std::string name;
  for (; *entry != '\0' && *entry != '=' && name.size() < kLongestShown; ++entry) name += *entry;
  return absl::CHexEscape(name);
}

}  // namespace

__attribute__((no_sanitize("address", "thread", "undefined"))) void CleanEnvironment(int, char**, char** environment) {
  if (environment == nullptr) return;
  char** kept = environment;
  for (char** entry = environment; *entry != nullptr; ++entry) {
    const Variable* variable = Find(*entry);
    if (variable == nullptr) {
      *kept++ = *entry;
      continue;
    }
    const auto kind = static_cast<size_t>(variable->kind);
    const size_t count = removed_count[kind]++;
    if (count < kMostShown) removed[kind][count] = *entry;
  }
  *kept = nullptr;
}

std::vector<RemovedVariables> WhatWasRemoved() {
  std::vector<RemovedVariables> all;
  for (size_t kind = 0; kind < kKinds; ++kind) {
    if (removed_count[kind] == 0) continue;
    RemovedVariables& these = all.emplace_back(RemovedVariables{static_cast<RemovedKind>(kind), "", kWhy[kind]});
    for (size_t at = 0; at < removed_count[kind] && at < kMostShown; ++at) {
      these.names += (at == 0 ? "" : ", ") + NameOf(removed[kind][at]);
    }
    if (removed_count[kind] > kMostShown) these.names += ", ...";
  }
  return all;
}

}  // namespace userintent
