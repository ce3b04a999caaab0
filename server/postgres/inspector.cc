#include "server/postgres/inspector.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ledger/webhook_store.h"
#include "server/postgres/rows.h"
#include "server/postgres/schema.h"

namespace userintent::postgres {

using ledger::Row;
using ledger::State;

absl::StatusOr<Rows> Inspector::Ask(std::string_view sql, std::initializer_list<Value> values) {
  const absl::StatusOr<Connection*> connection = store_.Connected();
  if (!connection.ok()) return connection.status();
  return (*connection)->Query(sql, values);
}

template <typename T>
absl::StatusOr<std::vector<T>> Inspector::Newest(const char* columns, const char* table,
                                                 const std::optional<Uuid>& request_id, size_t limit,
                                                 T (*read)(const Rows& rows, int at)) {
  const std::string sql = absl::StrCat("SELECT ", columns, " FROM ", table, request_id ? " WHERE request_id = $2" : "",
                                       " ORDER BY seq DESC LIMIT $1");
  const absl::StatusOr<Rows> rows = request_id ? Ask(sql, {limit, *request_id}) : Ask(sql, {limit});
  if (!rows.ok()) return rows.status();
  std::vector<T> all;
  for (int at = 0; at < rows->size(); ++at) all.push_back(read(*rows, at));
  return all;
}

absl::StatusOr<int64_t> Inspector::Number(std::string_view sql, std::initializer_list<Value> values) {
  const absl::StatusOr<Rows> rows = Ask(sql, values);
  if (!rows.ok()) return rows.status();
  return rows->Number(0, 0);
}

int Inspector::schema_version() const { return SchemaVersion(); }

absl::Status Inspector::CountCallers() {
  const absl::StatusOr<int64_t> count = Number("SELECT count(*) FROM caller", {});
  if (!count.ok()) return count.status();
  callers_ = *count;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Row>> Inspector::WithId(const Uuid& request_id) {
  // A look-up for each caller: the index begins with the caller.
  static const auto* const kSql =
      new std::string(SelectRows("WHERE r.caller IN (SELECT id FROM caller) AND r.request_id = $1 ORDER BY r.caller"));
  const absl::StatusOr<Rows> rows = Ask(*kSql, {request_id});
  if (!rows.ok()) return rows.status();
  return ReadRows(*rows);
}

absl::StatusOr<std::vector<Row>> Inspector::Oldest(State state, absl::Time created_before, bool not_superseded,
                                                   size_t limit) {
  constexpr char kRest[] =
      " AND r.created_at < $1 AND (r.superseded_by IS NULL OR NOT $2) ORDER BY r.created_at LIMIT $3";
  static const auto* const kUnknown = new std::string(SelectRows(absl::StrCat("WHERE r.state = 4", kRest)));
  static const auto* const kSending = new std::string(SelectRows(absl::StrCat("WHERE r.state = 1", kRest)));
  const absl::StatusOr<Rows> rows = Ask(state == State::kUnknown ? *kUnknown : *kSending,
                                        {absl::ToUnixMicros(created_before), not_superseded, limit});
  if (!rows.ok()) return rows.status();
  return ReadRows(*rows);
}

absl::StatusOr<ledger::Counters> Inspector::Count(const std::vector<ledger::Digest>& emails) {
  const absl::StatusOr<Rows> rows =
      Ask("SELECT coalesce(sum(confirmed), 0)::bigint, coalesce(sum(possible), 0)::bigint FROM email "
          "WHERE digest = ANY ($1)",
          {emails});
  if (!rows.ok()) return rows.status();
  return ledger::Counters{rows->Int(0, 0), rows->Int(0, 1)};
}

absl::StatusOr<bool> Inspector::AddOfAddresses(const std::vector<ledger::Digest>& emails, int64_t, int64_t& last,
                                               std::vector<Row>& rows) {
  // An index leads from an address to all of its rows, so one look is enough.
  if (last != 0) return false;
  last = 1;
  static const auto* const kSql = new std::string(SelectRows("WHERE e.digest = ANY ($1) ORDER BY r.id"));
  const absl::StatusOr<Rows> found = Ask(*kSql, {emails});
  if (!found.ok()) return found.status();
  absl::StatusOr<std::vector<Row>> all = ReadRows(*found);
  if (!all.ok()) return all.status();
  std::move(all->begin(), all->end(), std::back_inserter(rows));
  return true;
}

absl::StatusOr<std::vector<ledger::AuditEntry>> Inspector::Audit(const std::optional<Uuid>& request_id, size_t limit) {
  return Newest(kAuditColumns, "audit", request_id, limit, ReadAuditEntry);
}

absl::StatusOr<int64_t> Inspector::AuditEntries() { return Number("SELECT count(*) FROM audit", {}); }

absl::StatusOr<std::vector<ledger::Conflict>> Inspector::Conflicts(const std::optional<Uuid>& request_id,
                                                                   size_t limit) {
  return Newest(kConflictColumns, "conflict", request_id, limit, ReadConflict);
}

absl::StatusOr<std::vector<ledger::LedgerKey>> Inspector::Keys() {
  static const auto* const kSql = new std::string(
      absl::StrCat("SELECT ", kKeyColumns, " FROM ledger_key ORDER BY retired_at IS NOT NULL, retired_at DESC"));
  const absl::StatusOr<Rows> rows = Ask(*kSql, {});
  if (!rows.ok()) return rows.status();
  std::vector<ledger::LedgerKey> keys;
  for (int at = 0; at < rows->size(); ++at) keys.push_back(ReadKey(*rows, at));
  return keys;
}

absl::StatusOr<bool> Inspector::HasRowsUnder(uint64_t key_id) {
  const absl::StatusOr<int64_t> any =
      Number("SELECT EXISTS (SELECT 1 FROM request WHERE key_id = $1)", {std::bit_cast<int64_t>(key_id)});
  if (!any.ok()) return any.status();
  return *any != 0;
}

absl::Status Inspector::Add(int attempt_limit, int64_t slice, ledger::Totals& totals) {
  const absl::StatusOr<Rows> rows =
      Ask("SELECT state, count(*), max(id), key_id FROM (SELECT id, state, key_id FROM request WHERE id > $1 "
          "ORDER BY id LIMIT $2) s GROUP BY state, key_id",
          {totals.last_request, slice});
  if (!rows.ok()) return rows.status();
  totals.done = rows->size() == 0;
  for (int at = 0; at < rows->size(); ++at) {
    totals.requests.at(static_cast<size_t>(rows->Number(at, 0))) += rows->Number(at, 1);
    totals.requests_by_key[std::bit_cast<uint64_t>(rows->Number(at, 3))] += rows->Number(at, 1);
    totals.last_request = std::max(totals.last_request, rows->Number(at, 2));
  }
  const absl::StatusOr<Rows> emails =
      Ask("SELECT count(*), count(*) FILTER (WHERE confirmed >= $3), max(id) FROM (SELECT id, confirmed FROM email "
          "WHERE id > $1 ORDER BY id LIMIT $2) s",
          {totals.last_address, slice, attempt_limit});
  if (!emails.ok()) return emails.status();
  if (emails->Number(0, 0) == 0) return absl::OkStatus();
  totals.addresses += emails->Number(0, 0);
  totals.addresses_at_limit += emails->Number(0, 1);
  totals.last_address = emails->Number(0, 2);
  totals.done = false;
  return absl::OkStatus();
}

absl::StatusOr<ledger::WebhookEvidence> Inspector::EvidenceOf(const ledger::Record& record, absl::Time now) {
  ledger::WebhookEvidence evidence;
  evidence.forgotten_before = now - ledger::kWebhooksKept;
  const int64_t since = absl::ToUnixMicros(record.created);
  const absl::StatusOr<Rows> counts =
      Ask("SELECT (SELECT count(*) FROM webhook WHERE attempt_id = $1), "
          "(SELECT count(*) FROM webhook WHERE received_at >= $2 AND attempt_id IS DISTINCT FROM $1), "
          "(SELECT count(*) FROM (SELECT 1 FROM webhook WHERE attempt_id IS NULL AND received_at >= $2 LIMIT $3) s)",
          {record.attempt_id, since, ledger::kNamelessCounted});
  if (!counts.ok()) return counts.status();
  evidence.naming_all = counts->Number(0, 0);
  evidence.others = counts->Number(0, 1);
  evidence.nameless = counts->Number(0, 2);
  const absl::StatusOr<Rows> naming =
      Ask("SELECT webhook_id, type, resource_id, received_at, result, due_at IS NOT NULL FROM webhook "
          "WHERE attempt_id = $1 ORDER BY id DESC LIMIT $2",
          {record.attempt_id, ledger::kNamingShown});
  if (!naming.ok()) return naming.status();
  for (int at = 0; at < naming->size(); ++at) {
    ledger::WebhookEvidence::Naming& one = evidence.naming.emplace_back();
    one.webhook = {naming->Text(at, 0), naming->Text(at, 1), naming->Text(at, 2), record.attempt_id,
                   naming->Time(at, 3)};
    one.result = naming->Text(at, 4);
    one.waits = naming->Bool(at, 5);
  }
  const absl::StatusOr<Rows> period = Ask("SELECT began, until FROM receiver_period ORDER BY id DESC LIMIT 1", {});
  if (!period.ok()) return period.status();
  if (period->size() > 0) {
    evidence.receiver_began = period->Time(0, 0);
    evidence.receiver_until = period->Time(0, 1);
    evidence.receiver_up = now - evidence.receiver_until <= ledger::kReceiverGap;
  }
  return evidence;
}

// ---- the operators' own session ----

absl::StatusOr<std::unique_ptr<OperatorsLedger>> OperatorsLedger::Open(const std::string& url, bool any_schema,
                                                                       absl::Duration patience) {
  StoreOptions options;
  options.connection.url = url;
  options.connection.application_name = "userintent-ledger";
  options.connection.statement_timeout = patience;
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(std::move(options));
  if (!store.ok()) return store.status();
  auto opened = std::unique_ptr<OperatorsLedger>(new OperatorsLedger(*std::move(store)));
  const absl::StatusOr<int> version = VersionOf(*opened->store_->connection());
  if (!version.ok()) return version.status();
  if (any_schema) return opened;
  if (*version != SchemaVersion()) {
    return absl::FailedPreconditionError(
        *version == 0 ? std::string("the database holds no ledger; userintent-ledger migrate makes one")
                      : absl::StrCat("the schema is version ", *version, ", this program needs ", SchemaVersion(),
                                     *version < SchemaVersion() ? "; run userintent-ledger migrate"
                                                                : "; use the userintent-ledger that belongs to it"));
  }
  if (absl::Status s = opened->inspector_.CountCallers(); !s.ok()) return s;
  return opened;
}

absl::Status OperatorsLedger::Transact(Work work) {
  // Another process may be quicker; then it is looked at again.
  for (int tries = 20;; --tries) {
    absl::Status s = store_->Start();
    if (s.ok()) s = work(*store_, inspector_);
    if (s.ok()) s = store_->Commit();
    if (s.ok()) return s;
    store_->Rollback();
    if (!absl::IsAborted(s) || tries <= 1) return s;
  }
}

absl::StatusOr<ledger::BackupReport> OperatorsLedger::BackUp(const ledger::BackupOptions&) {
  return absl::UnimplementedError(
      "a ledger in PostgreSQL is backed up by the database's own means: a base backup with its log, or pg_dump; "
      "docs/replicas.md says what a restore means");
}

absl::StatusOr<std::pair<int, int>> OperatorsLedger::Migrate() {
  Connection& connection = *store_->connection();
  const absl::StatusOr<int> before = VersionOf(connection);
  if (!before.ok()) return before.status();
  if (absl::Status s = postgres::Migrate(connection); !s.ok()) return s;
  const absl::StatusOr<int> after = VersionOf(connection);
  if (!after.ok()) return after.status();
  return std::pair(*before, *after);
}

absl::StatusOr<std::vector<ReplicaRow>> OperatorsLedger::Replicas(int64_t more) {
  const absl::StatusOr<Rows> rows = store_->connection()->Query(
      "SELECT epoch, name, (extract(epoch FROM started) * 1000000)::bigint, "
      "(extract(epoch FROM seen) * 1000000)::bigint, (extract(epoch FROM ended) * 1000000)::bigint, swept, beat, "
      "(SELECT count(*) FROM request WHERE state = 1 AND owner = replica.epoch) FROM replica WHERE NOT swept "
      "OR epoch IN (SELECT epoch FROM replica WHERE swept ORDER BY epoch DESC LIMIT $1) ORDER BY epoch DESC",
      {more});
  if (!rows.ok()) return rows.status();
  std::vector<ReplicaRow> all;
  for (int at = 0; at < rows->size(); ++at) {
    all.push_back({rows->Number(at, 0), rows->Text(at, 1), rows->Time(at, 2), rows->Time(at, 3), rows->Time(at, 4),
                   rows->Bool(at, 5), rows->Number(at, 6), rows->Number(at, 7)});
  }
  return all;
}

}  // namespace userintent::postgres
