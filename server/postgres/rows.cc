#include "server/postgres/rows.h"

#include <bit>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::postgres {
namespace {

using ledger::Row;
using ledger::Sent;
using ledger::State;

constexpr char kColumns[] =
    "r.id, c.name, r.request_id, r.state, r.sent, r.reason, r.http_status, r.confirmed, r.user_intent_id, "
    "r.astra_status, r.astra_request_id, r.answered_at, r.attempt_id, r.attempts, r.supersedes, r.superseded_by, "
    "r.created_at, r.updated_at, r.key_id, r.content, r.person, e.digest, r.verification_type, r.read_at, "
    "r.latest_status, r.latest_user_id, r.latest_type, r.status_since, r.owner, e.id, e.version, e.confirmed, "
    "e.possible";

enum Column : int {
  kId,
  kCaller,
  kRequestId,
  kState,
  kSent,
  kReason,
  kHttpStatus,
  kConfirmed,
  kUserIntentId,
  kAstraStatus,
  kAstraRequestId,
  kAnsweredAt,
  kAttemptId,
  kAttempts,
  kSupersedes,
  kSupersededBy,
  kCreatedAt,
  kUpdatedAt,
  kKeyId,
  kContent,
  kPerson,
  kEmail,
  kVerificationType,
  kReadAt,
  kLatestStatus,
  kLatestUserId,
  kLatestType,
  kStatusSince,
  kOwner,
  kAddressId,
  kVersion,
  kAddressConfirmed,
  kPossible,
  kColumnsEnd,
};

std::optional<int64_t> MicrosOrNull(absl::Time time) {
  if (time == absl::InfinitePast()) return std::nullopt;
  return absl::ToUnixMicros(time);
}

// One array of all rows' values of one column.
template <typename T, typename Get>
Value ArrayOf(absl::Span<const Row* const> rows, Get get) {
  std::vector<T> all;
  all.reserve(rows.size());
  for (const Row* row : rows) all.push_back(get(*row));
  return all;
}

}  // namespace

const int kRowColumns = kColumnsEnd;

std::string SelectRows(std::string_view rest) {
  return absl::StrCat("SELECT ", kColumns,
                      " FROM request r JOIN caller c ON c.id = r.caller JOIN email e ON e.id = r.email ",
                      std::string(rest));
}

const std::string& SelectRowsByKey() {
  static const auto* const kSql =
      new std::string(absl::StrCat("SELECT ", kColumns, " FROM ", kRequestByKey, " JOIN email e ON e.id = r.email"));
  return *kSql;
}

absl::StatusOr<Row> ReadRow(const Rows& rows, int at) {
  Row row;
  ledger::Record& record = row.record;
  const int state = rows.Int(at, kState);
  const int sent = rows.Int(at, kSent);
  if (state < 1 || state > 5 || sent < 0 || sent > 2) return absl::InternalError("a row does not make sense");
  row.handle = rows.Number(at, kId);
  record.key = {rows.Text(at, kCaller), rows.Id(at, kRequestId)};
  record.state = static_cast<State>(state);
  record.sent = static_cast<Sent>(sent);
  record.reason = rows.Int(at, kReason);
  record.answer.http_status = rows.Int(at, kHttpStatus);
  record.answer.confirmed = rows.Bool(at, kConfirmed);
  record.answer.user_intent_id = rows.Text(at, kUserIntentId);
  record.answer.astra_status = rows.Text(at, kAstraStatus);
  record.answer.astra_request_id = rows.Text(at, kAstraRequestId);
  record.answer.at = rows.Time(at, kAnsweredAt);
  record.attempt_id = rows.Id(at, kAttemptId);
  record.posts = rows.Int(at, kAttempts);
  record.supersedes = rows.OptionalId(at, kSupersedes);
  record.superseded_by = rows.OptionalId(at, kSupersededBy);
  record.created = rows.Time(at, kCreatedAt);
  record.updated = rows.Time(at, kUpdatedAt);
  record.verification_type = rows.Int(at, kVerificationType);
  row.key_id = std::bit_cast<uint64_t>(rows.Number(at, kKeyId));
  row.content = rows.DigestAt(at, kContent);
  row.person = rows.DigestAt(at, kPerson);
  row.email = rows.DigestAt(at, kEmail);
  row.owner = rows.Number(at, kOwner);
  if (rows.IsNull(at, kReadAt)) {
    record.latest = ledger::LatestOf(record);
  } else {
    record.latest.read_at = rows.Time(at, kReadAt);
    record.latest.astra_status = rows.Text(at, kLatestStatus);
    record.latest.user_id = rows.Text(at, kLatestUserId);
    record.latest.verification_type = rows.Int(at, kLatestType);
    record.latest.status_since = rows.Time(at, kStatusSince);
  }
  return row;
}

AddressState ReadAddress(const Rows& rows, int at) {
  return {rows.Number(at, kAddressId),
          rows.Number(at, kVersion),
          {rows.Int(at, kAddressConfirmed), rows.Int(at, kPossible)}};
}

absl::StatusOr<std::vector<Row>> ReadRows(const Rows& rows) {
  std::vector<Row> all;
  all.reserve(static_cast<size_t>(rows.size()));
  for (int at = 0; at < rows.size(); ++at) {
    absl::StatusOr<Row> row = ReadRow(rows, at);
    if (!row.ok()) return row.status();
    all.push_back(*std::move(row));
  }
  return all;
}

absl::StatusOr<std::vector<Row>> ReadRows(Connection& connection, std::string_view sql,
                                          absl::Span<const Value> values) {
  const absl::StatusOr<Rows> rows = connection.Query(sql, values);
  if (!rows.ok()) return rows.status();
  return ReadRows(*rows);
}

std::vector<Value> ProgressArrays(absl::Span<const Row* const> rows) {
  return {
      ArrayOf<int64_t>(rows, [](const Row& row) { return static_cast<int64_t>(row.record.state); }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return static_cast<int64_t>(row.record.sent); }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.reason}; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.answer.http_status}; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.answer.confirmed}; }),
      ArrayOf<std::string>(rows, [](const Row& row) { return row.record.answer.user_intent_id; }),
      ArrayOf<std::string>(rows, [](const Row& row) { return row.record.answer.astra_status; }),
      ArrayOf<std::string>(rows, [](const Row& row) { return row.record.answer.astra_request_id; }),
      ArrayOf<std::optional<int64_t>>(rows, [](const Row& row) { return MicrosOrNull(row.record.answer.at); }),
      ArrayOf<Uuid>(rows, [](const Row& row) { return row.record.attempt_id; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.posts}; }),
      ArrayOf<std::optional<Uuid>>(rows, [](const Row& row) { return row.record.supersedes; }),
      ArrayOf<std::optional<Uuid>>(rows, [](const Row& row) { return row.record.superseded_by; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return absl::ToUnixMicros(row.record.updated); }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return row.owner; }),
  };
}

std::vector<Value> BindingArrays(absl::Span<const Row* const> rows) {
  return {
      ArrayOf<int64_t>(rows, [](const Row& row) { return std::bit_cast<int64_t>(row.key_id); }),
      ArrayOf<ledger::Digest>(rows, [](const Row& row) { return row.content; }),
      ArrayOf<ledger::Digest>(rows, [](const Row& row) { return row.person; }),
      ArrayOf<ledger::Digest>(rows, [](const Row& row) { return row.email; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.verification_type}; }),
  };
}

std::vector<Value> LatestArrays(absl::Span<const Row* const> rows) {
  return {
      ArrayOf<int64_t>(rows, [](const Row& row) { return absl::ToUnixMicros(row.record.latest.read_at); }),
      ArrayOf<std::string>(rows, [](const Row& row) { return row.record.latest.astra_status; }),
      ArrayOf<std::string>(rows, [](const Row& row) { return row.record.latest.user_id; }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return int64_t{row.record.latest.verification_type}; }),
      ArrayOf<std::optional<int64_t>>(rows,
                                      [](const Row& row) { return MicrosOrNull(row.record.latest.status_since); }),
      ArrayOf<int64_t>(rows, [](const Row& row) { return absl::ToUnixMicros(row.record.latest.after); }),
  };
}

const char kAuditColumns[] = "seq, at, actor, action, caller, request_id, from_state, to_state, evidence";

ledger::AuditEntry ReadAuditEntry(const Rows& rows, int at) {
  return {rows.Number(at, 0),
          rows.Time(at, 1),
          rows.Text(at, 2),
          rows.Text(at, 3),
          {rows.Text(at, 4), rows.Id(at, 5)},
          static_cast<ledger::State>(rows.Int(at, 6)),
          static_cast<ledger::State>(rows.Int(at, 7)),
          rows.Text(at, 8)};
}

const char kConflictColumns[] =
    "seq, at, caller, request_id, attempt_id, recorded_state, recorded_intent, claimed_state, claimed_intent, action, "
    "evidence";

ledger::Conflict ReadConflict(const Rows& rows, int at) {
  return {rows.Number(at, 0),
          rows.Time(at, 1),
          {rows.Text(at, 2), rows.Id(at, 3)},
          rows.Id(at, 4),
          static_cast<ledger::State>(rows.Int(at, 5)),
          rows.Text(at, 6),
          static_cast<ledger::State>(rows.Int(at, 7)),
          rows.Text(at, 8),
          rows.Text(at, 9),
          rows.Text(at, 10)};
}

const char kKeyColumns[] = "key_id, since, retired_at";

ledger::LedgerKey ReadKey(const Rows& rows, int at) {
  ledger::LedgerKey key;
  key.id = std::bit_cast<uint64_t>(rows.Number(at, 0));
  key.since = rows.Time(at, 1);
  if (!rows.IsNull(at, 2)) key.until = rows.Time(at, 2);
  return key;
}

}  // namespace userintent::postgres
