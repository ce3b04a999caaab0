// What became of a transaction whose COMMIT was not answered.
//
// The old connection's session is closed first: that waits for the end of the old transaction, whichever it is, and
// nothing of it can follow. Only then its rows are looked for. A row that is found is never sent from, though it stands
// there: what a look-up sees may be on this server only, and the next failover would forget it. It is released, by a
// commit that is confirmed; that one lies behind it in the same log, so it proves the row, or fails.
//
// Outcomes need none of this: they are written again, and what is written twice is written once.
#include <utility>

#include "server/ledger/execute.h"
#include "server/postgres/store.h"

namespace userintent::postgres {

using ledger::State;

void Store::Doubt() {
  doubt_.session = session_;
  for (const auto& [key, held] : rows_) {
    if (!held.now || !held.progress || held.now->record.state != State::kSending) continue;
    // Another POST of a row that runs is not begun: its call hears so, and ends the row itself.
    if (held.stored && held.stored->record.state == State::kSending) continue;
    doubt_.begun.push_back({key, held.now->record.attempt_id, held.now->owner});
  }
  in_doubt_.store(doubt_.begun.size(), std::memory_order_relaxed);
  session_ = 0;
}

absl::Status Store::ResolveDoubt() {
  if (const absl::StatusOr<Connection*> connection = Connected(); !connection.ok()) return connection.status();
  ++round_trips_;
  const absl::StatusOr<Rows> closed =
      connection_->Query("UPDATE session SET open = false WHERE id = $1", {doubt_.session});
  if (!closed.ok()) return closed.status();
  if (absl::Status s = EnsureSession(); !s.ok()) return s;
  const std::vector<Begun> begun = std::exchange(doubt_.begun, {});
  const int64_t session = std::exchange(doubt_.session, 0);
  in_doubt_.store(0, std::memory_order_relaxed);
  Clear();
  open_ = true;  // one transaction releases them all
  // Whatever goes wrong from here on, they are in doubt as before.
  const auto again = [&](absl::Status why) {
    Rollback();
    Lost();
    doubt_.session = session;
    doubt_.begun.insert(doubt_.begun.end(), begun.begin(), begun.end());
    in_doubt_.store(doubt_.begun.size(), std::memory_order_relaxed);
    return why.ok() ? absl::OkStatus() : why;
  };
  bool found = false;
  for (const Begun& one : begun) {
    running_.erase(one.key);
    ledger::Lookup lookup;
    lookup.key = &one.key;
    const absl::StatusOr<ledger::View> view = Load(lookup);
    if (!view.ok()) return again(view.status());
    if (!view->own || view->own->record.attempt_id != one.attempt_id) continue;
    // One that was recovered meanwhile is told, too, that nothing was sent.
    const State state = view->own->record.state;
    if (state != State::kSending && state != State::kUnknown) continue;
    ledger::FinishRequest finish;
    finish.key = one.key;
    finish.owner = one.owner;
    finish.state = State::kReleased;
    finish.sent = ledger::Sent::kNo;
    finish.reason = options_.released_reason;
    finish.now = options_.now();
    const absl::StatusOr<ledger::FinishAnswer> answer = ledger::Execute(*this, finish);
    if (!answer.ok() && !ledger::IsRefusal(answer.status())) return again(answer.status());
    found = found || answer.ok();
  }
  if (!found) {
    Rollback();
    return absl::OkStatus();
  }
  if (absl::Status s = Commit(); !s.ok()) return again(s);
  return absl::OkStatus();
}

}  // namespace userintent::postgres
