// What a SqliteStore is asked that no decision follows: which rows something speaks of, and what succeeded. All rows of
// the table lie in the order of their arrival, and so nearly in the order of `created_at`.
#include <algorithm>
#include <limits>
#include <utility>

#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

constexpr int64_t kRowsAtOnce = 1000;  // a fraction of a millisecond where they are in the cache

absl::Status Take(absl::StatusOr<std::optional<Row>>&& row, std::optional<Record>& record) {
  if (row.ok() && *row) record = std::move((*row)->record);
  return row.status();
}

}  // namespace

absl::StatusOr<std::optional<Row>> SqliteStore::ById(int64_t handle) {
  SqliteUse use = Use(kById);
  use.Bind(1, handle);
  return One(use);
}

absl::StatusOr<TraceAnswer> SqliteStore::Trace(const TraceRequest& request) {
  TraceAnswer answer;
  answer.available = true;
  if (!request.intent.empty()) {
    absl::StatusOr<std::vector<Row>> rows = WithIntent(request.intent);
    if (!rows.ok()) return rows.status();
    if (!rows->empty()) answer.by_intent = std::move(rows->front().record);
  }
  if (!request.attempt_id) return answer;
  if (answer.by_intent && answer.by_intent->attempt_id == *request.attempt_id) {
    answer.by_attempt = answer.by_intent;
    return answer;
  }
  for (const Statement statement : {kTraceEnded, kTraceRunning}) {
    SqliteUse use = Use(statement);
    use.Bind(1, *request.attempt_id);
    if (absl::Status s = Take(One(use), answer.by_attempt); !s.ok()) return s;
    if (answer.by_attempt) return answer;
  }
  if (request.by_index_only) {
    answer.more = true;
    return answer;
  }
  if (absl::Status s = TraceSlice(request, answer); !s.ok()) return s;
  return answer;
}

// The next slice of the SUCCEEDED rows, from the newest one back.
absl::Status SqliteStore::TraceSlice(const TraceRequest& request, TraceAnswer& answer) {
  int64_t found = 0;
  {
    SqliteUse use = Use(kTraceSlice);
    use.Bind(1, request.cursor == 0 ? std::numeric_limits<int64_t>::max() : request.cursor).Bind(2, kRowsAtOnce);
    use.Bind(3, *request.attempt_id);
    int64_t seen = 0;
    for (; found == 0; ++seen) {
      const absl::StatusOr<bool> row = use.Step();
      if (!row.ok()) return row.status();
      if (!*row || use.Time(1) < request.since) break;
      answer.cursor = use.Number(0);
      if (use.Number(2) != 0) found = answer.cursor;
    }
    answer.more = found == 0 && seen == kRowsAtOnce;
  }
  return found == 0 ? absl::OkStatus() : Take(ById(found), answer.by_attempt);
}

// The number before that of the first such row. There is no index by time: the rows are halved until it is found. Where
// the clock went back a row may be missed; it is read again when somebody asks for it.
absl::StatusOr<int64_t> SqliteStore::FirstCreatedSince(absl::Time since) {
  const absl::StatusOr<int64_t> last = connection_.Number("SELECT max(id) FROM request WHERE true");
  if (!last.ok()) return last.status();
  int64_t low = 1;
  int64_t high = *last + 1;  // the answer is in [low, high]
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    SqliteUse use = Use(kFirstFrom);
    const absl::StatusOr<bool> row = use.Bind(1, middle).Step();
    if (!row.ok()) return row.status();
    if (!*row || use.Time(1) >= since) {
      high = middle;
    } else {
      low = use.Number(0) + 1;
    }
  }
  return low - 1;
}

absl::StatusOr<SucceededAnswer> SqliteStore::Succeeded(const SucceededRequest& request) {
  SucceededAnswer answer;
  answer.available = true;
  answer.cursor = request.cursor;
  if (request.cursor == 0) {
    const absl::StatusOr<int64_t> before = FirstCreatedSince(request.since);
    if (!before.ok()) return before.status();
    answer.cursor = *before;
  }
  const auto limit = static_cast<int64_t>(std::max<size_t>(request.limit, 1));
  SqliteUse use = Use(kOld);
  use.Bind(1, answer.cursor).Bind(2, limit);
  int64_t seen = 0;
  for (;; ++seen) {
    absl::StatusOr<std::optional<Row>> row = One(use);
    if (!row.ok()) return row.status();
    if (!*row) break;
    answer.cursor = (*row)->handle;
    Record& record = (*row)->record;
    if (record.state == State::kSucceeded && record.created >= request.since) {
      answer.records.push_back(std::move(record));
    }
  }
  answer.more = seen == limit;
  return answer;
}

absl::StatusOr<UnresolvedAnswer> SqliteStore::Unresolved() {
  // The condition is the one of the partial index, which has `created_at`: no row is touched.
  SqliteUse use(connection_,
                "SELECT count(*), min(created_at) FROM (SELECT created_at FROM request WHERE state = 4 "
                "ORDER BY created_at LIMIT ?1)");
  use.Bind(1, kUnresolvedCounted);
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  UnresolvedAnswer answer;
  answer.available = true;
  answer.count = use.Number(0);
  if (answer.count != 0) answer.oldest = use.Time(1);
  return answer;
}

}  // namespace userintent::ledger
