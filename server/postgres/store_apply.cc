// What an operation changes, done to the rows and addresses in memory.
#include <utility>

#include "server/base/time.h"
#include "server/postgres/store.h"

namespace userintent::postgres {
namespace {

using ledger::Changes;
using ledger::Digest;
using ledger::Key;
using ledger::Row;
using ledger::RowChange;
using ledger::State;

// As the database will keep them, so that what is read from memory is what will be read later.
void RoundTimes(ledger::Record& record) {
  for (absl::Time* time :
       {&record.created, &record.updated, &record.answer.at, &record.latest.read_at, &record.latest.status_since}) {
    if (*time != absl::InfinitePast()) *time = ToMicros(*time);
  }
}

}  // namespace

absl::Status Store::Apply(Changes changes) {
  // Everything that changes was loaded; but for what an operator's work puts together by itself.
  for (const Changes::Count& count : changes.counts) {
    if (absl::Status s = FetchAddress(count.email); !s.ok()) return s;
  }
  for (const RowChange& change : changes.rows) {
    if (absl::Status s = FetchAddress(change.row.email); !s.ok()) return s;
    if (absl::Status s = FetchKey(change.row.record.key); !s.ok()) return s;
  }
  for (const Changes::Purge& purge : changes.purged) {
    if (absl::Status s = FetchKey(purge.row.record.key); !s.ok()) return s;
  }
  for (const Changes::EmailMove& move : changes.emails) MoveEmail(move.from, move.to);
  for (const Changes::PersonMove& move : changes.persons) MovePerson(move);
  for (const Changes::Count& count : changes.counts) Touched(count.email).counters += count.delta;
  for (RowChange& change : changes.rows) {
    if (change.logged) log_.push_back(change.row.record.key);
    Put(std::move(change));
  }
  for (const Changes::Purge& purge : changes.purged) {
    rows_[purge.row.record.key].now.reset();
    Touched(purge.row.email).purged += purge.counted;
  }
  if (changes.audit) audit_.push_back(*std::move(changes.audit));
  if (changes.conflict) conflicts_.push_back(*std::move(changes.conflict));
  return absl::OkStatus();
}

absl::Status Store::FetchKey(const Key& key) {
  Wants wants;
  if (rows_.try_emplace(key).second) {
    wants.callers.push_back(key.caller);
    wants.ids.push_back(key.request_id);
  }
  return Fetch(wants);
}

absl::Status Store::FetchAddress(const Digest& email) {
  Wants wants;
  if (addresses_.try_emplace(email).second) wants.emails.push_back(email);
  return Fetch(wants);
}

Store::HeldAddress& Store::Touched(const Digest& email) {
  HeldAddress& held = addresses_[email];
  held.touched = true;
  return held;
}

void Store::Put(RowChange&& change) {
  Row& row = change.row;
  RoundTimes(row.record);
  Held& held = rows_[row.record.key];
  if (change.part == RowChange::Part::kLatest) {
    held.latest = true;
    held.now->record.latest = row.record.latest;
    return;
  }
  // A row whose reading was taken and that changes beside it, in one batch, has both.
  Touched(row.email);
  held.progress = true;
  held.whole = held.whole || change.part == RowChange::Part::kWhole;
  const bool moved = held.now && held.now->email != row.email;
  if (held.now) {
    Touched(held.now->email);
    row.handle = held.now->handle;
  }
  if (!held.now || moved) by_email_[row.email].push_back(row.record.key);
  held.now = std::move(row);
}

void Store::MoveEmail(const Digest& from, const Digest& to) {
  const auto at = addresses_.find(from);
  if (at == addresses_.end() || (at->second.stored.id == 0 && !at->second.touched)) return;
  const HeldAddress moved = std::exchange(at->second, HeldAddress{});
  HeldAddress& there = Touched(to);
  if (moved.stored.id != 0) {
    moves_.push_back({moved.stored.id, moved.stored.version, to, there.stored.id});
    if (there.stored.id == 0) there.stored = moved.stored;  // under its new digest
  }
  there.counters += moved.counters;
  there.purged += moved.purged;
  for (const Row* row : RowsOf(from)) {
    Held& held = rows_[row->record.key];
    held.now->email = to;
    by_email_[to].push_back(row->record.key);
  }
  by_email_.erase(from);
  if (opened_.contains(from)) opened_.insert(to);
}

void Store::MovePerson(const Changes::PersonMove& move) {
  const auto at = addresses_.find(move.email);
  if (at == addresses_.end() || at->second.stored.id == 0) return;
  person_moves_.push_back(move);
  for (const Row* row : RowsOf(move.email)) {
    if (row->person == move.from && row->record.state == State::kSucceeded) {
      rows_[row->record.key].now->person = move.to;
    }
  }
}

}  // namespace userintent::postgres
