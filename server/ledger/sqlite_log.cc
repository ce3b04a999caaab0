// A SqliteStore's change log and its marks of conflicts.
#include <algorithm>
#include <utility>

#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

// In one slice: entries that are read, and rows that are looked up.
constexpr int64_t kLogAtOnce = 2000;
constexpr size_t kLogRowsAtOnce = 256;
// More changes than any ledger sees; the numbers last for millions of restores all the same.
constexpr int64_t kLostAtMost = int64_t{1} << 40;

}  // namespace

absl::Status SqliteStore::Log(const Row& row) {
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(row.record.key.caller, false);
  if (!caller.ok()) return caller.status();
  const int64_t revision = fresh_logged_.value_or(logged_) + 1;
  SqliteUse use = Use(kLog);
  use.Bind(1, revision).Bind(2, row.handle).Bind(3, caller->value_or(0));
  if (absl::Status s = use.Run(); !s.ok()) return s;
  fresh_logged_ = revision;
  fresh_log_.push_back({revision, row.record.key});
  return absl::OkStatus();
}

absl::Status SqliteStore::BreakLog() {
  const int64_t next = logged_ + kLostAtMost;
  if (absl::Status s = Use(kPruneLog).Bind(1, next).Run(); !s.ok()) return s;
  if (absl::Status s = Use(kLog).Bind(1, next).Bind(2, int64_t{0}).Bind(3, int64_t{0}).Run(); !s.ok()) return s;
  fresh_logged_ = fresh_first_logged_ = next;
  return absl::OkStatus();
}

absl::StatusOr<LogSlice> SqliteStore::ReadLog(const LogLookup& lookup) {
  LogSlice slice;
  slice.upto = lookup.after;
  if (lookup.after + 1 != first_logged_) {
    SqliteUse holds = Use(kLogHolds);
    const absl::StatusOr<bool> said = holds.Bind(1, lookup.after).Step();
    if (!said.ok()) return said.status();
    slice.too_old = holds.Number(0) == 0;
  }
  if (slice.too_old) return slice;
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(*lookup.caller, false);
  if (!caller.ok()) return caller.status();
  Found found;
  if (absl::Status s = ReadLogSlice(lookup, caller->value_or(-1), found, slice.upto); !s.ok()) return s;
  for (auto& [handle, entry] : found) {
    if (!entry) continue;
    const absl::StatusOr<Address> address = AddressOf(entry->row.email);
    if (!address.ok()) return address.status();
    entry->counters = address->counters;
    slice.entries.push_back(*std::move(entry));
  }
  std::sort(slice.entries.begin(), slice.entries.end(),
            [](const LogSlice::Entry& a, const LogSlice::Entry& b) { return a.revision < b.revision; });
  return slice;
}

absl::Status SqliteStore::ReadLogSlice(const LogLookup& lookup, int64_t caller, Found& found, int64_t& upto) {
  size_t wanted = 0;
  SqliteUse use = Use(kReadLog);
  use.Bind(1, lookup.after).Bind(2, kLogAtOnce);
  for (;; upto = use.Number(0)) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok() || !*more) return more.status();
    if (use.Number(2) != caller) continue;
    const int64_t handle = use.Number(1);
    auto at = found.find(handle);
    if (at == found.end()) {
      if (wanted == std::max<size_t>(lookup.limit, 1) || found.size() == kLogRowsAtOnce) return absl::OkStatus();
      absl::StatusOr<std::optional<Row>> row = ById(handle);
      if (!row.ok()) return row.status();
      at = found.try_emplace(handle).first;
      // The number of a row that was forgotten may be another caller's by now.
      const bool of_caller = *row && (*row)->record.key.caller == *lookup.caller;
      if (of_caller && (lookup.only == nullptr || lookup.only->contains((*row)->record.key.request_id))) {
        at->second.emplace(LogSlice::Entry{0, **std::move(row), {}});
        ++wanted;
      }
    }
    if (at->second) at->second->revision = use.Number(0);
  }
}

bool SqliteStore::LogIsLong(int64_t keep) const { return first_logged_ <= logged_ - std::max<int64_t>(keep, 1); }

absl::Status SqliteStore::PruneLog(int64_t keep, int64_t at_once) {
  const int64_t first = std::min(first_logged_ + at_once, logged_ + 1 - std::max<int64_t>(keep, 1));
  if (first <= first_logged_) return absl::OkStatus();
  if (absl::Status s = Use(kPruneLog).Bind(1, first).Run(); !s.ok()) return s;
  fresh_first_logged_ = first;
  return absl::OkStatus();
}

absl::Status SqliteStore::Mark(const Conflict& conflict) {
  SqliteUse use = Use(kMark);
  use.Bind(1, Micros(conflict.at)).Bind(2, conflict.key.caller).Bind(3, conflict.key.request_id);
  use.Bind(4, conflict.attempt_id);
  use.Bind(5, static_cast<int64_t>(conflict.recorded)).Bind(6, conflict.recorded_intent);
  use.Bind(7, static_cast<int64_t>(conflict.claimed)).Bind(8, conflict.claimed_intent);
  use.Bind(9, conflict.action).Bind(10, conflict.evidence);
  return use.Run();
}

}  // namespace userintent::ledger
