// What the files of Decide share. Internal to decide*.cc and rules.cc.
#pragma once

#include <openssl/crypto.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "server/ledger/decide.h"

namespace userintent::ledger {

// Digests are keyed hashes, so a timing leak would tell little; the rule is constant time all the same.
inline bool Same(const Digest& a, const Digest& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

bool SameEmail(const Row& row, const BeginRequest& request);  // under any of its fingerprints

template <typename Answer>
Decision<Answer> Refuse(Refusal refusal, std::string why) {
  Decision<Answer> decision;
  decision.refusal = refusal;
  decision.why = std::move(why);
  return decision;
}

// Puts `after` in the place of a row that counted for `was`, so that the counters of the address stay the sum over its
// rows. Returns what they grow by.
inline Counters Replace(const Counters& was, Row&& after, RowChange::Part part, const Rules& rules, Changes& changes,
                        bool logged = false) {
  const Counters is = rules.count_of(after.record);
  const Counters delta{is.confirmed - was.confirmed, is.possible - was.possible};
  if (was != is) changes.counts.push_back({after.email, delta});
  changes.rows.emplace_back(std::move(after), part, logged);
  return delta;
}

// Marks the row as superseded by that request, or by none.
void MarkSuperseded(Row named, const std::optional<Uuid>& by, absl::Time now, Changes& changes);

// Takes a reading of a SUCCEEDED row into `latest`, unless it is older. `log_news`: the change log gets an entry when
// it says something else than the latest.
void TakeReading(Row& row, const Reading& reading, bool log_news, Changes& changes);

// What is wrong with a text that is kept for ever; nothing, if it may be kept.
std::optional<std::string> WrongText(const char* what, std::string_view text, size_t most);

}  // namespace userintent::ledger
