#include "server/usecase/watch_token.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstddef>

namespace userintent::usecase {
namespace {

constexpr char kVersion = 1;
constexpr size_t kHeadBytes = 1 + 3 * 8;
constexpr size_t kMacBytes = 16;
constexpr uint64_t kAnew = UINT64_MAX;  // instead of a revision

void AppendNumber(uint64_t number, std::string* out) {
  for (int shift = 56; shift >= 0; shift -= 8) out->push_back(static_cast<char>(number >> shift & 0xff));
}

uint64_t NumberAt(std::string_view bytes, size_t at) {
  uint64_t number = 0;
  for (const char byte : bytes.substr(at, 8)) number = number << 8 | static_cast<uint8_t>(byte);
  return number;
}

std::string MacOf(const intent::KeyedHash& key, std::string_view head, std::string_view caller) {
  const ledger::Digest digest = key.Of("userintent/v1/watch-token", head, caller);
  return {reinterpret_cast<const char*>(digest.data()), kMacBytes};
}

}  // namespace

WatchTokens::WatchTokens(const Options& options, const Secret& key, const std::vector<Secret>& previous)
    : options_(options) {
  keys_.reserve(1 + previous.size());
  keys_.emplace_back(key);
  for (const Secret& one : previous) keys_.emplace_back(one);
}

std::string WatchTokens::Make(std::string_view caller, const WatchPosition& position) const {
  std::string token(1, kVersion);
  AppendNumber(options_.ledger_id, &token);
  AppendNumber(static_cast<uint64_t>(options_.restored), &token);
  AppendNumber(position.revision ? static_cast<uint64_t>(*position.revision) : kAnew, &token);
  return token + MacOf(keys_.front(), token, caller);
}

WatchTokens::Verdict WatchTokens::Read(std::string_view caller, std::string_view token, WatchPosition* position) const {
  if (token.size() != kHeadBytes + kMacBytes || token.front() != kVersion) return Verdict::kForeign;
  const std::string_view head = token.substr(0, kHeadBytes);
  const std::string_view mac = token.substr(kHeadBytes);
  const bool ours = std::any_of(keys_.begin(), keys_.end(), [&](const intent::KeyedHash& key) {
    return CRYPTO_memcmp(MacOf(key, head, caller).data(), mac.data(), kMacBytes) == 0;
  });
  if (!ours || NumberAt(head, 1) != options_.ledger_id) return Verdict::kForeign;
  if (NumberAt(head, 9) != static_cast<uint64_t>(options_.restored)) return Verdict::kTooOld;
  const uint64_t revision = NumberAt(head, 17);
  position->revision.reset();
  if (revision != kAnew) position->revision = static_cast<int64_t>(revision);
  return Verdict::kGood;
}

}  // namespace userintent::usecase
