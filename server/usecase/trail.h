// Trail: what was done on behalf of one call, for its line in the log. Filled by Creation, carried by the Result, or by
// CallerLeft where there is none. Plain values.
#pragma once

#include <optional>
#include <string>

#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/ledger/ledger.h"

namespace userintent::usecase {

struct Trail {
  int posts = 0;                                // that this call began
  std::optional<Uuid> attempt_id;               // of the last one
  int http_status = 0;                          // what Astra answered to it, if it did
  std::string astra_request_id;                 // at most 128 printable bytes
  std::optional<SteadyClock::duration> begin;   // until the ledger had decided; of a join: until that call ended
  std::optional<SteadyClock::duration> queued;  // until a slot was free, or the wait for one ended
  SteadyClock::duration upstream{};             // the POSTs, added up; of one under way, so far
  std::optional<SteadyClock::duration> finish;  // until the ledger had recorded the outcome
  // Of a call whose caller left, whether Astra has its request by then; nothing: that is not known here.
  std::optional<ledger::Sent> sent;

  void OnPostBegun(const Uuid& attempt) {
    ++posts;
    attempt_id = attempt;
  }
  void OnPostEnded(const astra::Outcome& outcome, SteadyClock::duration took) {
    upstream += took;
    http_status = outcome.http_status;
    astra_request_id = outcome.astra_request_id;
  }
};

}  // namespace userintent::usecase
