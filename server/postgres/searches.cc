#include "server/postgres/searches.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/postgres/connection.h"
#include "server/postgres/rows.h"

namespace userintent::postgres {
namespace {

using ledger::Row;
using ledger::State;

constexpr int kRowsAtOnce = 1000;
// A row may have a number that is higher than one that was created so much later.
constexpr absl::Duration kOutOfOrder = absl::Minutes(1);

// $1: an intent, $2: an attempt. A condition repeats its partial index's, or the index cannot be used.
std::string TraceSql() {
  return absl::StrCat(
      "(",
      SelectRows(
          "WHERE right(r.user_intent_id, 8) = right($1, 8) AND r.state = 2 AND r.user_intent_id = $1 AND $1 <> '' "
          "ORDER BY r.created_at DESC, r.caller DESC, r.request_id DESC LIMIT 1"),
      ") UNION ALL (", SelectRows("WHERE r.attempt_id = $2 AND r.state >= 3 ORDER BY r.id DESC LIMIT 1"),
      ") UNION ALL (", SelectRows("WHERE r.state = 1 AND r.attempt_id = $2 LIMIT 1"), ")");
}

// The next slice of the SUCCEEDED rows, from the newest one back.
absl::Status TraceSlice(Connection& connection, const ledger::TraceRequest& request, ledger::TraceAnswer& answer) {
  const absl::StatusOr<Rows> rows = connection.Query(
      "SELECT id, created_at, state = 2 AND attempt_id = $2 FROM request WHERE id < $1 ORDER BY id DESC LIMIT 1000",
      {request.cursor == 0 ? std::numeric_limits<int64_t>::max() : request.cursor, *request.attempt_id});
  if (!rows.ok()) return rows.status();
  int64_t found = 0;
  int seen = 0;
  for (; found == 0 && seen < rows->size(); ++seen) {
    if (rows->Time(seen, 1) < request.since - kOutOfOrder) break;
    answer.cursor = rows->Number(seen, 0);
    if (rows->Bool(seen, 2) && rows->Time(seen, 1) >= request.since) found = answer.cursor;
  }
  answer.more = found == 0 && seen == kRowsAtOnce;
  if (found == 0) return absl::OkStatus();
  static const std::string* const kSql = new std::string(SelectRows("WHERE r.id = $1"));
  absl::StatusOr<std::vector<Row>> row = ReadRows(connection, *kSql, std::vector<Value>{found});
  if (!row.ok()) return row.status();
  if (!row->empty()) answer.by_attempt = std::move(row->front().record);
  return absl::OkStatus();
}

// The number before that of the first row that was created since then; rows are halved until it is found. Where a clock
// went back a row may be missed; it is read again when somebody asks for it.
absl::StatusOr<int64_t> FirstCreatedSince(Connection& connection, absl::Time since) {
  const absl::StatusOr<Rows> last =
      connection.Query("SELECT coalesce(max(id), 0) FROM request", std::initializer_list<Value>{});
  if (!last.ok()) return last.status();
  int64_t low = 1;
  int64_t high = last->Number(0, 0) + 1;  // the answer is in [low, high]
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const absl::StatusOr<Rows> row =
        connection.Query("SELECT id, created_at FROM request WHERE id >= $1 ORDER BY id LIMIT 1", {middle});
    if (!row.ok()) return row.status();
    if (row->size() == 0 || row->Time(0, 1) >= since) {
      high = middle;
    } else {
      low = row->Number(0, 0) + 1;
    }
  }
  return low - 1;
}

}  // namespace

absl::StatusOr<ledger::TraceAnswer> Trace(Connection& connection, const ledger::TraceRequest& request) {
  ledger::TraceAnswer answer;
  answer.available = true;
  static const std::string* const kSql = new std::string(TraceSql());
  // An id of zeros is nobody's.
  absl::StatusOr<std::vector<Row>> rows =
      ReadRows(connection, *kSql, std::vector<Value>{request.intent, request.attempt_id.value_or(Uuid{})});
  if (!rows.ok()) return rows.status();
  for (Row& row : *rows) {
    // Only by its intent is one found that is SUCCEEDED.
    const bool succeeded = row.record.state == State::kSucceeded;
    (succeeded ? answer.by_intent : answer.by_attempt) = std::move(row.record);
  }
  if (!request.attempt_id || answer.by_attempt) return answer;
  if (answer.by_intent && answer.by_intent->attempt_id == *request.attempt_id) {
    answer.by_attempt = answer.by_intent;
    return answer;
  }
  if (request.by_index_only) {
    answer.more = true;
    return answer;
  }
  if (absl::Status s = TraceSlice(connection, request, answer); !s.ok()) return s;
  return answer;
}

absl::StatusOr<ledger::UnresolvedAnswer> Unresolved(Connection& connection) {
  // The condition is the one of the partial index, which has `created_at`: no row is touched.
  const absl::StatusOr<Rows> rows = connection.Query(
      "SELECT count(*), coalesce(min(created_at), 0) FROM (SELECT created_at FROM request WHERE state = 4 ORDER BY "
      "created_at LIMIT $1) unknown",
      {ledger::kUnresolvedCounted});
  if (!rows.ok()) return rows.status();
  ledger::UnresolvedAnswer answer;
  answer.available = true;
  answer.count = rows->Number(0, 0);
  if (answer.count != 0) answer.oldest = rows->Time(0, 1);
  return answer;
}

absl::StatusOr<ledger::SucceededAnswer> Succeeded(Connection& connection, const ledger::SucceededRequest& request) {
  ledger::SucceededAnswer answer;
  answer.available = true;
  answer.cursor = request.cursor;
  if (request.cursor == 0) {
    const absl::StatusOr<int64_t> before = FirstCreatedSince(connection, request.since - kOutOfOrder);
    if (!before.ok()) return before.status();
    answer.cursor = *before;
  }
  const auto limit = static_cast<int64_t>(std::max<size_t>(request.limit, 1));
  static const std::string* const kSql = new std::string(SelectRows("WHERE r.id > $1 ORDER BY r.id LIMIT $2"));
  absl::StatusOr<std::vector<Row>> rows = ReadRows(connection, *kSql, std::vector<Value>{answer.cursor, limit});
  if (!rows.ok()) return rows.status();
  for (Row& row : *rows) {
    answer.cursor = row.handle;
    if (row.record.state != State::kSucceeded || row.record.created < request.since) continue;
    answer.records.push_back(std::move(row.record));
  }
  answer.more = static_cast<int64_t>(rows->size()) == limit;
  return answer;
}

}  // namespace userintent::postgres
