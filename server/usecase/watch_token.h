// WatchTokens: the resume tokens of watches (contract section 7): where in the ledger's changes a stream stands.
//
// A token is, in this order: version (1 byte), the ledger's id, its restore and the revision (8 bytes each,
// big-endian), and the first 16 bytes of HMAC-SHA256 of all that and the caller. So it is good for one caller at one
// ledger, whoever serves it and for as long as the ledger's key, as the current or a previous one, is known; it says
// nothing that is personal. The caller is not in it: whoever presents it is one.
//
// Any thread; immutable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/secret.h"
#include "server/intent/keyed_hash.h"

namespace userintent::usecase {

// Where a stream stands.
struct WatchPosition {
  // All that happened up to this revision has been told. Nothing: the present states have not all been told, so a
  // stream that resumes begins anew.
  std::optional<int64_t> revision;
  friend bool operator==(const WatchPosition&, const WatchPosition&) = default;
};

class WatchTokens {
 public:
  struct Options {
    uint64_t ledger_id = 0;
    // The time of the last backup that an operator put in the place of this ledger, 0: never. What happened after it in
    // the lost ledger had revisions which the restored one gives to other changes, so tokens from before are too old.
    int64_t restored = 0;
  };

  // `previous`: the ledger keys before the current one, whose tokens are still good.
  WatchTokens(const Options& options, const Secret& key, const std::vector<Secret>& previous);
  WatchTokens(const WatchTokens&) = delete;
  WatchTokens& operator=(const WatchTokens&) = delete;

  std::string Make(std::string_view caller, const WatchPosition& position) const;

  enum class Verdict {
    kGood,
    kTooOld,   // of this ledger before it was restored
    kForeign,  // not made for this caller at this ledger
  };
  // Says in `position` where a kGood one stands.
  Verdict Read(std::string_view caller, std::string_view token, WatchPosition* position) const;

 private:
  const Options options_;
  std::vector<intent::KeyedHash> keys_;  // the current one first
};

}  // namespace userintent::usecase
