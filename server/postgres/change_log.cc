#include "server/postgres/change_log.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/postgres/connection.h"
#include "server/postgres/rows.h"

namespace userintent::postgres {
namespace {

constexpr int kPollAtOnce = 1000;  // as in the statement

// The first revision that cannot be read yet.
#define HORIZON "(pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20)"

constexpr char kLast[] =
    "SELECT coalesce((SELECT revision FROM change WHERE revision < " HORIZON " ORDER BY revision DESC LIMIT 1), 0)";

// $1: after. One whose row was forgotten has neither caller nor id, and is told to nobody.
constexpr char kPoll[] =
    "SELECT n.revision, r.name, r.request_id FROM (SELECT revision, request FROM change "
    "WHERE revision > $1 AND revision < " HORIZON
    " ORDER BY revision LIMIT 1000) n "
    "LEFT JOIN LATERAL (SELECT k.name, o.request_id FROM request o JOIN caller k ON k.id = o.caller "
    "WHERE o.id = n.request OFFSET 0) r ON true ORDER BY n.revision";

// $1: after, $2: a caller. The first row: what was forgotten last, and what can be read last. The others: the changes;
// the row's number and id where it is one of this caller's. OFFSET 0: each row is looked up, whatever the planner holds
// of a table that it does not know yet.
constexpr char kSlice[] =
    "(SELECT 0::bigint AS revision, coalesce((SELECT value::bigint FROM setting WHERE name = 'log_pruned'), 0), "
    "NULL::uuid, coalesce((SELECT revision FROM change WHERE revision < " HORIZON
    " ORDER BY revision DESC LIMIT 1), 0)) "
    "UNION ALL (SELECT n.revision, r.id, r.request_id, 0 FROM (SELECT revision, request, caller FROM change "
    "WHERE revision > $1 AND revision < " HORIZON
    " ORDER BY revision LIMIT 2000) n "
    "LEFT JOIN LATERAL (SELECT o.id, o.request_id FROM request o WHERE o.id = n.request "
    "AND o.caller = (SELECT k.id FROM caller k WHERE k.name = $2) OFFSET 0) r "
    "ON true) ORDER BY revision";

// $1: that are kept, $2: at most.
constexpr char kPrune[] =
    "WITH last AS (SELECT revision FROM change ORDER BY revision DESC OFFSET $1 LIMIT 1), "
    "old AS (SELECT c.revision FROM change c, last WHERE c.revision <= last.revision ORDER BY c.revision LIMIT $2), "
    "gone AS (DELETE FROM change WHERE revision IN (SELECT revision FROM old) RETURNING revision), "
    "noted AS (INSERT INTO setting (name, value) SELECT 'log_pruned', max(revision)::text FROM gone HAVING count(*) > "
    "0 "
    "ON CONFLICT (name) DO UPDATE SET value = greatest(setting.value::bigint, excluded.value::bigint)::text) "
    "SELECT count(*) FROM gone";

// Of a slice: the rows that are wanted, each at its last change.
struct Wanted {
  absl::flat_hash_map<int64_t, int64_t> last;  // by the number of the row: its revision
  int64_t upto = 0;
};

// Goes through the changes until there are enough rows. `rows`: of kSlice, the first one left out.
Wanted Choose(const Rows& rows, const ledger::LogLookup& lookup) {
  Wanted wanted;
  wanted.upto = lookup.after;
  const size_t limit = std::max<size_t>(lookup.limit, 1);
  for (int at = 1; at < rows.size(); ++at) {
    const int64_t revision = rows.Number(at, 0);
    if (!rows.IsNull(at, 1) && (lookup.only == nullptr || lookup.only->contains(rows.Id(at, 2)))) {
      const int64_t handle = rows.Number(at, 1);
      const auto known = wanted.last.find(handle);
      if (known == wanted.last.end() && wanted.last.size() == limit) return wanted;
      wanted.last[handle] = revision;
    }
    wanted.upto = revision;
  }
  return wanted;
}

}  // namespace

absl::StatusOr<int64_t> LastRevision(Connection& connection) {
  const absl::StatusOr<Rows> rows = connection.Query(kLast, std::initializer_list<Value>{});
  if (!rows.ok()) return rows.status();
  return rows->Number(0, 0);
}

absl::StatusOr<ledger::LogSlice> ReadLog(Connection& connection, const ledger::LogLookup& lookup) {
  ledger::LogSlice slice;
  slice.upto = lookup.after;
  const absl::StatusOr<Rows> rows = connection.Query(kSlice, {lookup.after, *lookup.caller});
  if (!rows.ok()) return rows.status();
  slice.too_old = lookup.after < rows->Number(0, 1) || lookup.after > rows->Number(0, 3);
  if (slice.too_old) return slice;
  const Wanted wanted = Choose(*rows, lookup);
  slice.upto = wanted.upto;
  if (wanted.last.empty()) return slice;
  std::vector<int64_t> handles;
  for (const auto& [handle, revision] : wanted.last) handles.push_back(handle);
  static const std::string* const kSql = new std::string(SelectRows("WHERE r.id = ANY ($1)"));
  const absl::StatusOr<Rows> found = connection.Query(*kSql, {handles});
  if (!found.ok()) return found.status();
  for (int at = 0; at < found->size(); ++at) {
    absl::StatusOr<ledger::Row> row = ReadRow(*found, at);
    if (!row.ok()) return row.status();
    const int64_t revision = wanted.last.at(row->handle);
    slice.entries.push_back({revision, *std::move(row), ReadAddress(*found, at).counters});
  }
  std::sort(slice.entries.begin(), slice.entries.end(),
            [](const ledger::LogSlice::Entry& a, const ledger::LogSlice::Entry& b) { return a.revision < b.revision; });
  return slice;
}

absl::StatusOr<int64_t> PruneLog(Connection& connection, int64_t keep, int64_t at_once) {
  const absl::StatusOr<Rows> rows = connection.Query(kPrune, {std::max<int64_t>(keep, 1), at_once});
  if (!rows.ok()) return rows.status();
  return rows->Number(0, 0);
}

absl::StatusOr<BootNanos> ChangePoller::Turn(Connection& connection, BootNanos now) {
  if (now < due_at_) return due_at_;  // another poller wanted this turn
  const absl::StatusOr<Rows> rows = connection.Query(kPoll, {revision()});
  if (!rows.ok()) return rows.status();
  if (rows->size() == 0) return due_at_ = now + (now - news_at_ < kBusyFor ? kBusyPause : kQuietPause);
  news_at_ = now;
  std::vector<ledger::Change> changes;
  int64_t revision = 0;
  for (int at = 0; at < rows->size(); ++at) {
    revision = rows->Number(at, 0);
    if (rows->IsNull(at, 1)) continue;
    changes.push_back({revision, {rows->Text(at, 1), rows->Id(at, 2)}});
  }
  revision_.store(revision, std::memory_order_release);  // when the listener hears of a change, it is at least that
  ledger::ChangeListener* const listener = listener_.load(std::memory_order_acquire);
  if (listener != nullptr && !changes.empty()) listener->OnChanges(changes);
  return due_at_ = rows->size() < kPollAtOnce ? now + kBusyPause : now;
}

}  // namespace userintent::postgres
