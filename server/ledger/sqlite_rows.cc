#include "server/ledger/sqlite_rows.h"

#include <bit>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/time.h"

namespace userintent::ledger {
namespace {

using Part = RowChange::Part;
using Use = SqliteUse;

// Statements and partial indexes name states by these numbers.
static_assert(static_cast<int>(State::kSending) == 1 && static_cast<int>(State::kSucceeded) == 2 &&
              static_cast<int>(State::kFailed) == 3 && static_cast<int>(State::kUnknown) == 4 &&
              static_cast<int>(State::kReleased) == 5);

struct Column {
  const char* name;
  bool (*read)(const Use& use, int at, Row& row);  // false: it cannot be so
  void (*bind)(Use& use, int at, const Row& row);
};

// The progress of a request; what it is bound to and found by; the latest reading, NULL where there is none.
constexpr Column kColumns[] = {
    {"state",
     [](const Use& use, int at, Row& row) {
       row.record.state = static_cast<State>(use.Int(at));
       return use.Int(at) >= 1 && use.Int(at) <= 5;
     },
     [](Use& use, int at, const Row& row) { use.Bind(at, static_cast<int64_t>(row.record.state)); }},
    {"sent",
     [](const Use& use, int at, Row& row) {
       row.record.sent = static_cast<Sent>(use.Int(at));
       return use.Int(at) >= 0 && use.Int(at) <= 2;
     },
     [](Use& use, int at, const Row& row) { use.Bind(at, static_cast<int64_t>(row.record.sent)); }},
    {"reason", [](const Use& use, int at, Row& row) { return row.record.reason = use.Int(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.reason}); }},
    {"http_status", [](const Use& use, int at, Row& row) { return row.record.answer.http_status = use.Int(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.answer.http_status}); }},
    {"confirmed", [](const Use& use, int at, Row& row) { return row.record.answer.confirmed = use.Int(at) != 0, true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.answer.confirmed}); }},
    {"user_intent_id",
     [](const Use& use, int at, Row& row) { return row.record.answer.user_intent_id = use.Text(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.answer.user_intent_id); }},
    {"astra_status",
     [](const Use& use, int at, Row& row) { return row.record.answer.astra_status = use.Text(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.answer.astra_status); }},
    {"astra_request_id",
     [](const Use& use, int at, Row& row) { return row.record.answer.astra_request_id = use.Text(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.answer.astra_request_id); }},
    {"answered_at",
     [](const Use& use, int at, Row& row) {
       if (!use.IsNull(at)) row.record.answer.at = use.Time(at);
       return true;
     },
     [](Use& use, int at, const Row& row) {
       if (row.record.answer.at != absl::InfinitePast()) use.Bind(at, Micros(row.record.answer.at));
     }},
    {"attempt_id", [](const Use& use, int at, Row& row) { return use.Bytes(at, row.record.attempt_id); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.attempt_id); }},
    {"attempts", [](const Use& use, int at, Row& row) { return row.record.posts = use.Int(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.posts}); }},
    {"supersedes", [](const Use& use, int at, Row& row) { return use.OptionalId(at, row.record.supersedes); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.supersedes); }},
    {"superseded_by", [](const Use& use, int at, Row& row) { return use.OptionalId(at, row.record.superseded_by); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.superseded_by); }},
    {"updated_at", [](const Use& use, int at, Row& row) { return row.record.updated = use.Time(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, Micros(row.record.updated)); }},

    {"request_id", [](const Use& use, int at, Row& row) { return use.Bytes(at, row.record.key.request_id); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.key.request_id); }},
    {"created_at", [](const Use& use, int at, Row& row) { return row.record.created = use.Time(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, Micros(row.record.created)); }},
    {"key_id",
     [](const Use& use, int at, Row& row) { return row.key_id = std::bit_cast<uint64_t>(use.Number(at)), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, std::bit_cast<int64_t>(row.key_id)); }},
    {"content", [](const Use& use, int at, Row& row) { return use.Bytes(at, row.content); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.content); }},
    {"person", [](const Use& use, int at, Row& row) { return use.Bytes(at, row.person); },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.person); }},
    {"verification_type",
     [](const Use& use, int at, Row& row) { return row.record.verification_type = use.Int(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.verification_type}); }},

    {"latest_status",
     [](const Use& use, int at, Row& row) { return row.record.latest.astra_status = use.Text(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.latest.astra_status); }},
    {"latest_user_id", [](const Use& use, int at, Row& row) { return row.record.latest.user_id = use.Text(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, row.record.latest.user_id); }},
    {"latest_type",
     [](const Use& use, int at, Row& row) { return row.record.latest.verification_type = use.Int(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, int64_t{row.record.latest.verification_type}); }},
    {"status_since",
     [](const Use& use, int at, Row& row) { return row.record.latest.status_since = use.Time(at), true; },
     [](Use& use, int at, const Row& row) { use.Bind(at, Micros(row.record.latest.status_since)); }},
    // The last one: it says whether the reading before it is one.
    {"read_at",
     [](const Use& use, int at, Row& row) {
       row.record.latest.read_at = use.Time(at);
       if (use.IsNull(at)) row.record.latest = LatestOf(row.record);
       return true;
     },
     [](Use& use, int at, const Row& row) { use.Bind(at, Micros(row.record.latest.read_at)); }},
};
constexpr int kProgressEnd = 14;
constexpr int kFoundByEnd = 20;
constexpr int kEnd = std::size(kColumns);

struct Range {
  int first;
  int end;
};
constexpr Range RangeOf(Part part) {
  switch (part) {
    case Part::kProgress:
      return {0, kProgressEnd};
    case Part::kWhole:
      return {0, kFoundByEnd};
    case Part::kLatest:
      return {kFoundByEnd, kEnd};
  }
  return {0, kFoundByEnd};
}

}  // namespace

const int kCallerColumn = kEnd;
const int kHandleColumn = kEnd + 2;

std::string SelectRows(const std::string& where) {
  std::string sql = "SELECT ";
  for (const Column& column : kColumns) absl::StrAppend(&sql, "r.", column.name, ", ");
  return absl::StrCat(sql, "r.caller, e.digest, r.id FROM request r JOIN email e ON e.id = r.email ", where);
}

std::string InsertRowSql() {
  std::string names, values;
  for (int i = 0; i < kFoundByEnd; ++i) {
    absl::StrAppend(&names, kColumns[i].name, ", ");
    absl::StrAppend(&values, "?", i + 1, ", ");
  }
  return absl::StrCat("INSERT INTO request (", names, "caller, email) VALUES (", values, "?", kFoundByEnd + 1, ", ?",
                      kFoundByEnd + 2, ")");
}

std::string UpdateRowSql(Part part) {
  const Range range = RangeOf(part);
  std::string set;
  int at = 1;
  for (int i = range.first; i < range.end; ++i, ++at) {
    absl::StrAppend(&set, set.empty() ? "" : ", ", kColumns[i].name, " = ?", at);
  }
  if (part == Part::kWhole) absl::StrAppend(&set, ", email = ?", at++);
  return absl::StrCat("UPDATE request SET ", set, " WHERE id = ?", at);
}

int BindRow(SqliteUse& use, const Row& row, Part part) {
  const Range range = RangeOf(part);
  int at = 1;
  for (int i = range.first; i < range.end; ++i, ++at) kColumns[i].bind(use, at, row);
  return at;
}

bool ReadRow(const SqliteUse& use, Row& row) {
  for (int i = 0; i < kEnd; ++i) {
    if (!kColumns[i].read(use, i, row)) return false;
  }
  row.handle = use.Number(kHandleColumn);
  return use.Bytes(kCallerColumn + 1, row.email);
}

const char kAuditColumns[] = "seq, at, actor, action, caller, request_id, from_state, to_state, evidence";

bool ReadAuditEntry(const SqliteUse& use, AuditEntry& entry) {
  const auto state = [&use](int column) { return static_cast<State>(use.Int(column)); };
  entry = {use.Number(0), use.Time(1), use.Text(2), use.Text(3), {use.Text(4), {}}, state(6), state(7), use.Text(8)};
  return use.Bytes(5, entry.key.request_id);
}

const char kConflictColumns[] =
    "seq, at, caller, request_id, attempt_id, recorded_state, recorded_intent, claimed_state, claimed_intent, action, "
    "evidence";

bool ReadConflict(const SqliteUse& use, Conflict& conflict) {
  const auto state = [&use](int column) { return static_cast<State>(use.Int(column)); };
  conflict = {use.Number(0), use.Time(1), {use.Text(2), {}}, {},          state(5),
              use.Text(6),   state(7),    use.Text(8),       use.Text(9), use.Text(10)};
  return use.Bytes(3, conflict.key.request_id) && use.Bytes(4, conflict.attempt_id);
}

void RoundTimes(Record& record) {
  const auto round = [](absl::Time& time) {
    if (time != absl::InfinitePast()) time = ToMicros(time);
  };
  round(record.created);
  round(record.updated);
  round(record.answer.at);
}

}  // namespace userintent::ledger
