// What the files of Decide share. Internal to decide.cc, decide_operator.cc and rules.cc.
#pragma once

#include <openssl/crypto.h>

#include <string>
#include <utility>

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
inline Counters Replace(const Counters& was, Row&& after, RowChange::Part part, const Rules& rules, Changes& changes) {
  const Counters is = rules.count_of(after.record);
  const Counters delta{is.confirmed - was.confirmed, is.possible - was.possible};
  if (was != is) changes.counts.push_back({after.email, delta});
  changes.rows.emplace_back(std::move(after), part);
  return delta;
}

}  // namespace userintent::ledger
