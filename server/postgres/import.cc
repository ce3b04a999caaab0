#include "server/postgres/import.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/postgres/rows.h"
#include "server/postgres/schema.h"

namespace userintent::postgres {
namespace {

using ledger::Row;

const std::initializer_list<Value> kNoValues = {};

// Rows that are sent at once: what is kept in memory.
constexpr size_t kAtOnce = 2000;

// A session of hours, in which the tool reads its source meanwhile.
constexpr char kSettings[] =
    "SET statement_timeout TO 0; SET idle_in_transaction_session_timeout TO '1h'; SET lock_timeout TO '10s'";

constexpr char kDatabase[] =
    "SELECT system_identifier::text || '/' || (SELECT oid::text FROM pg_database WHERE datname = current_database()) "
    "FROM pg_control_system()";

constexpr char kUsed[] =
    "SELECT EXISTS (SELECT 1 FROM replica) OR EXISTS (SELECT 1 FROM ledger_key) OR EXISTS (SELECT 1 FROM request) OR "
    "EXISTS (SELECT 1 FROM email) OR EXISTS (SELECT 1 FROM caller) OR EXISTS (SELECT 1 FROM change) OR "
    "EXISTS (SELECT 1 FROM audit) OR EXISTS (SELECT 1 FROM conflict) OR EXISTS (SELECT 1 FROM webhook) OR "
    "EXISTS (SELECT 1 FROM receiver_period) OR EXISTS (SELECT 1 FROM restored), "
    "(SELECT value FROM setting WHERE name = 'copied')";

constexpr char kImportAddresses[] =
    "INSERT INTO email (digest, confirmed, possible, purged_confirmed, purged_possible) "
    "SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])";
// Of rows that count for no attempt.
constexpr char kMoreAddresses[] =
    "INSERT INTO email (digest, confirmed, possible) SELECT DISTINCT digest, 0, 0 FROM unnest($1::bytea[]) "
    "AS n (digest) ON CONFLICT DO NOTHING";
constexpr char kCallers[] =
    "INSERT INTO caller (name) SELECT DISTINCT name FROM unnest($1::text[]) AS n (name) ON CONFLICT DO NOTHING";

// $1 callers, $2 to $16 ProgressArrays, $17 to $21 BindingArrays, $22 ids, $23 created, $24 to $28 the latest reading.
constexpr char kRows[] =
    "INSERT INTO request (caller, email, state, sent, reason, http_status, confirmed, user_intent_id, astra_status, "
    "astra_request_id, answered_at, attempt_id, attempts, supersedes, superseded_by, updated_at, owner, key_id, "
    "content, person, verification_type, request_id, created_at, read_at, latest_status, latest_user_id, latest_type, "
    "status_since) SELECT c.id, e.id, t.state, t.sent, t.reason, t.http_status, t.confirmed <> 0, t.user_intent_id, "
    "t.astra_status, t.astra_request_id, t.answered_at, t.attempt_id, t.attempts, t.supersedes, t.superseded_by, "
    "t.updated_at, t.owner, t.key_id, t.content, t.person, t.verification_type, t.request_id, t.created_at, t.read_at, "
    "t.latest_status, t.latest_user_id, t.latest_type, t.status_since FROM unnest($1::text[], $2::bigint[], "
    "$3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::bigint[], "
    "$11::uuid[], $12::bigint[], $13::uuid[], $14::uuid[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bytea[], "
    "$19::bytea[], $20::bytea[], $21::bigint[], $22::uuid[], $23::bigint[], $24::bigint[], $25::text[], $26::text[], "
    "$27::bigint[], $28::bigint[]) WITH ORDINALITY AS t (caller_name, state, sent, reason, http_status, confirmed, "
    "user_intent_id, astra_status, astra_request_id, answered_at, attempt_id, attempts, supersedes, superseded_by, "
    "updated_at, owner, key_id, content, person, email_digest, verification_type, request_id, created_at, read_at, "
    "latest_status, latest_user_id, latest_type, status_since, n) JOIN caller c ON c.name = t.caller_name "
    "JOIN email e ON e.digest = t.email_digest ORDER BY t.n";

constexpr char kImportAudit[] =
    "INSERT INTO audit (at, actor, action, caller, request_id, from_state, to_state, evidence) "
    "SELECT at, actor, action, caller, request_id, from_state, to_state, evidence FROM unnest($1::bigint[], "
    "$2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::bigint[], $8::text[]) WITH ORDINALITY AS t (at, "
    "actor, action, caller, request_id, from_state, to_state, evidence, n) ORDER BY n";
constexpr char kImportConflict[] =
    "INSERT INTO conflict (at, caller, request_id, attempt_id, recorded_state, recorded_intent, claimed_state, "
    "claimed_intent, action, evidence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
constexpr char kWebhooks[] =
    "INSERT INTO webhook (webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result) "
    "SELECT webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result FROM unnest($1::text[], "
    "$2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[]) WITH ORDINALITY "
    "AS t (webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result, n) ORDER BY n";

// Every change is looked up by itself, whatever the planner holds of tables that it does not know yet.
constexpr char kChanges[] =
    "INSERT INTO change (revision, request, caller) SELECT t.revision, coalesce(r.id, 0), coalesce(r.caller, 0) "
    "FROM unnest($1::bigint[], $2::text[], $3::uuid[]) AS t (revision, name, request_id) LEFT JOIN LATERAL "
    "(SELECT q.id, q.caller FROM request q WHERE q.caller = (SELECT c.id FROM caller c WHERE c.name = t.name) "
    "AND q.request_id = t.request_id OFFSET 0) r ON true";

constexpr char kImportSetting[] =
    "INSERT INTO setting VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

constexpr char kWrongCounters[] =
    "SELECT count(*) FROM email e LEFT JOIN (SELECT email, count(*) FILTER (WHERE confirmed) AS confirmed, "
    "count(*) FILTER (WHERE NOT confirmed AND state <> 5) AS possible FROM request GROUP BY email) r ON r.email = e.id "
    "WHERE e.confirmed <> e.purged_confirmed + coalesce(r.confirmed, 0) "
    "OR e.possible <> e.purged_possible + coalesce(r.possible, 0)";

// Collects things until there are enough of them, and sends them together.
template <typename T, typename Send>
absl::Status InBatches(ledger::Content& from, absl::Status (ledger::Content::*tell)(ledger::Content::Each<T>),
                       Send send) {
  std::vector<T> batch;
  const absl::Status told = (from.*tell)([&](const T& one) -> absl::Status {
    batch.push_back(one);
    if (batch.size() < kAtOnce) return absl::OkStatus();
    absl::Status sent = send(batch);
    batch.clear();
    return sent;
  });
  if (!told.ok() || batch.empty()) return told;
  return send(batch);
}

// One array of all things' values.
template <typename V, typename T, typename Get>
Value ArrayOf(const std::vector<T>& things, Get get) {
  std::vector<V> all;
  all.reserve(things.size());
  for (const T& thing : things) all.push_back(get(thing));
  return all;
}

std::optional<int64_t> MicrosOf(const std::optional<absl::Time>& time) {
  if (!time) return std::nullopt;
  return absl::ToUnixMicros(*time);
}

// Whether Astra has said something since its answer to the creation.
bool HasReading(const Row& row) {
  const ledger::Reading& latest = row.record.latest;
  const ledger::Reading first = LatestOf(row.record);
  return latest.astra_status != first.astra_status || latest.user_id != first.user_id ||
         latest.verification_type != first.verification_type || latest.status_since != first.status_since ||
         latest.read_at != first.read_at;
}

void AppendLatest(const std::vector<Row>& rows, std::vector<Value>& values) {
  using Number = std::optional<int64_t>;
  using Text = std::optional<std::string>;
  const auto append = [&]<typename V>(V (*get)(const ledger::Reading&)) {
    values.push_back(
        ArrayOf<V>(rows, [get](const Row& row) { return HasReading(row) ? get(row.record.latest) : V(); }));
  };
  append(+[](const ledger::Reading& latest) { return Number(absl::ToUnixMicros(latest.read_at)); });
  append(+[](const ledger::Reading& latest) { return Text(latest.astra_status); });
  append(+[](const ledger::Reading& latest) { return Text(latest.user_id); });
  append(+[](const ledger::Reading& latest) { return Number(latest.verification_type); });
  append(+[](const ledger::Reading& latest) {
    if (latest.status_since == absl::InfinitePast()) return Number();
    return Number(absl::ToUnixMicros(latest.status_since));
  });
}

std::vector<Value> ValuesOf(const std::vector<Row>& rows) {
  std::vector<const Row*> all;
  for (const Row& row : rows) all.push_back(&row);
  std::vector<Value> values = {ArrayOf<std::string>(rows, [](const Row& row) { return row.record.key.caller; })};
  for (Value& value : ProgressArrays(all)) values.push_back(std::move(value));
  for (Value& value : BindingArrays(all)) values.push_back(std::move(value));
  values.push_back(ArrayOf<Uuid>(rows, [](const Row& row) { return row.record.key.request_id; }));
  values.push_back(ArrayOf<int64_t>(rows, [](const Row& row) { return absl::ToUnixMicros(row.record.created); }));
  AppendLatest(rows, values);
  return values;
}

// What the statement was sent for must have been written, all of it.
absl::Status WriteAll(Connection& connection, std::string_view sql, const std::vector<Value>& values, size_t count) {
  const absl::StatusOr<Rows> done = connection.Query(sql, values);
  if (!done.ok()) return done.status();
  if (done->touched() == static_cast<int64_t>(count)) return absl::OkStatus();
  return absl::InternalError("the database took fewer rows than it was sent");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Import>> Import::Open(const std::string& url) {
  ConnectionOptions options;
  options.url = url;
  options.application_name = "userintent-ledger copy";
  options.statement_timeout = absl::Hours(2);
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connection::Open(options);
  if (!connection.ok()) return connection.status();
  std::unique_ptr<Import> import(new Import(*std::move(connection)));
  if (absl::Status s = import->connection_->Execute(kSettings); !s.ok()) return s;
  const absl::StatusOr<Rows> database = import->connection_->Query(kDatabase, kNoValues);
  if (!database.ok()) return database.status();
  import->database_ = database->Text(0, 0);
  return import;
}

absl::StatusOr<Import::Found> Import::Begin() {
  if (absl::Status s = connection_->Execute("BEGIN"); !s.ok()) return s;
  if (const absl::StatusOr<Rows> lock = connection_->Query(kJoinLock, kNoValues); !lock.ok()) {
    if (!absl::IsAborted(lock.status())) return lock.status();
    return absl::UnavailableError(
        "a gateway is just joining this ledger, or another copy is under way, perhaps one whose process is gone; try "
        "again in a moment");
  }
  Found found;
  const absl::StatusOr<int> version = VersionOf(*connection_);
  if (!version.ok()) return version.status();
  found.schema_version = *version;
  if (*version == 0) return found;
  const absl::StatusOr<Rows> used = connection_->Query(kUsed, kNoValues);
  if (!used.ok()) return used.status();
  found.used = used->Bool(0, 0);
  if (!used->IsNull(0, 1)) found.copy = ParseUuid(used->Text(0, 1));
  return found;
}

void Import::Rollback() { connection_->Execute("ROLLBACK").IgnoreError(); }

absl::StatusOr<int64_t> Import::NextRevision() {
  const absl::StatusOr<Rows> next = connection_->Query("SELECT pg_current_xact_id()::text::bigint << 20", kNoValues);
  if (!next.ok()) return next.status();
  return next->Number(0, 0);
}

absl::Status Import::Write(ledger::Content& from, const Uuid& copy) {
  absl::Status s = WriteAddresses(from);
  if (s.ok()) s = WriteRows(from);
  if (s.ok()) s = WriteRecords(from);
  if (s.ok()) s = WriteWebhooks(from);
  if (s.ok()) s = WriteLog(from);
  if (s.ok()) s = WriteLife(from, copy);
  // What follows reads everything once; until here each row was looked up.
  if (s.ok()) s = connection_->Execute("RESET enable_seqscan; RESET enable_mergejoin; ANALYZE email, request, change");
  return s;
}

absl::Status Import::WriteAddresses(ledger::Content& from) {
  using Address = ledger::AddressAttempts;
  return InBatches<Address>(from, &ledger::Content::Addresses, [this](const std::vector<Address>& all) {
    return WriteAll(*connection_, kImportAddresses,
                    {ArrayOf<ledger::Digest>(all, [](const Address& a) { return a.email; }),
                     ArrayOf<int64_t>(all, [](const Address& a) { return int64_t{a.all.confirmed}; }),
                     ArrayOf<int64_t>(all, [](const Address& a) { return int64_t{a.all.possible}; }),
                     ArrayOf<int64_t>(all, [](const Address& a) { return int64_t{a.purged.confirmed}; }),
                     ArrayOf<int64_t>(all, [](const Address& a) { return int64_t{a.purged.possible}; })},
                    all.size());
  });
}

absl::Status Import::WriteRows(ledger::Content& from) {
  return InBatches<Row>(from, &ledger::Content::Rows, [this](const std::vector<Row>& rows) -> absl::Status {
    const absl::StatusOr<Rows> callers = connection_->Query(
        kCallers, {ArrayOf<std::string>(rows, [](const Row& row) { return row.record.key.caller; })});
    if (!callers.ok()) return callers.status();
    const absl::StatusOr<Rows> addresses =
        connection_->Query(kMoreAddresses, {ArrayOf<ledger::Digest>(rows, [](const Row& row) { return row.email; })});
    if (!addresses.ok()) return addresses.status();
    return WriteAll(*connection_, kRows, ValuesOf(rows), rows.size());
  });
}

absl::Status Import::WriteRecords(ledger::Content& from) {
  using Entry = ledger::AuditEntry;
  absl::Status s = InBatches<Entry>(from, &ledger::Content::Audit, [this](const std::vector<Entry>& all) {
    return WriteAll(*connection_, kImportAudit,
                    {ArrayOf<int64_t>(all, [](const Entry& e) { return absl::ToUnixMicros(e.at); }),
                     ArrayOf<std::string>(all, [](const Entry& e) { return e.actor; }),
                     ArrayOf<std::string>(all, [](const Entry& e) { return e.action; }),
                     ArrayOf<std::string>(all, [](const Entry& e) { return e.key.caller; }),
                     ArrayOf<Uuid>(all, [](const Entry& e) { return e.key.request_id; }),
                     ArrayOf<int64_t>(all, [](const Entry& e) { return static_cast<int64_t>(e.from); }),
                     ArrayOf<int64_t>(all, [](const Entry& e) { return static_cast<int64_t>(e.to); }),
                     ArrayOf<std::string>(all, [](const Entry& e) { return e.evidence; })},
                    all.size());
  });
  if (!s.ok()) return s;
  s = from.Conflicts([this](const ledger::Conflict& c) {
    return WriteAll(
        *connection_, kImportConflict,
        {absl::ToUnixMicros(c.at), c.key.caller, c.key.request_id, c.attempt_id, static_cast<int>(c.recorded),
         c.recorded_intent, static_cast<int>(c.claimed), c.claimed_intent, c.action, c.evidence},
        1);
  });
  if (!s.ok()) return s;
  return from.Restores([this](const ledger::Restored& r) {
    return WriteAll(*connection_, "INSERT INTO restored (backup_of, served_until, acknowledged_at) VALUES ($1, $2, $3)",
                    {r.backup_of, r.served_until, r.acknowledged_at}, 1);
  });
}

absl::Status Import::WriteWebhooks(ledger::Content& from) {
  using Kept = ledger::KeptWebhook;
  const absl::Status s = InBatches<Kept>(from, &ledger::Content::Webhooks, [this](const std::vector<Kept>& all) {
    return WriteAll(*connection_, kWebhooks,
                    {ArrayOf<std::string>(all, [](const Kept& k) { return k.webhook.id; }),
                     ArrayOf<std::string>(all, [](const Kept& k) { return k.webhook.type; }),
                     ArrayOf<std::string>(all, [](const Kept& k) { return k.webhook.resource_id; }),
                     ArrayOf<std::optional<Uuid>>(all, [](const Kept& k) { return k.webhook.attempt_id; }),
                     ArrayOf<int64_t>(all, [](const Kept& k) { return absl::ToUnixMicros(k.webhook.received); }),
                     ArrayOf<std::optional<int64_t>>(all, [](const Kept& k) { return MicrosOf(k.due); }),
                     ArrayOf<int64_t>(all, [](const Kept& k) { return int64_t{k.tries}; }),
                     ArrayOf<std::string>(all, [](const Kept& k) { return k.result; })},
                    all.size());
  });
  if (!s.ok()) return s;
  return from.Periods([this](const ledger::ReceiverPeriod& period) {
    return WriteAll(*connection_, "INSERT INTO receiver_period (began, until) VALUES ($1, $2)",
                    {absl::ToUnixMicros(period.began), absl::ToUnixMicros(period.until)}, 1);
  });
}

absl::Status Import::WriteLog(ledger::Content& from) {
  using Change = ledger::LoggedChange;
  return InBatches<Change>(from, &ledger::Content::Changes, [this](const std::vector<Change>& all) {
    return WriteAll(*connection_, kChanges,
                    {ArrayOf<int64_t>(all, [](const Change& c) { return c.revision; }),
                     ArrayOf<std::optional<std::string>>(
                         all, [](const Change& c) { return c.key ? std::optional(c.key->caller) : std::nullopt; }),
                     ArrayOf<std::optional<Uuid>>(
                         all, [](const Change& c) { return c.key ? std::optional(c.key->request_id) : std::nullopt; })},
                    all.size());
  });
}

absl::Status Import::WriteLife(ledger::Content& from, const Uuid& copy) {
  const absl::StatusOr<std::vector<ledger::LedgerKey>> keys = from.Keys();
  if (!keys.ok()) return keys.status();
  std::vector<int64_t> ids, since;
  std::vector<std::optional<int64_t>> until;
  for (const ledger::LedgerKey& key : *keys) {
    ids.push_back(std::bit_cast<int64_t>(key.id));
    since.push_back(absl::ToUnixMicros(key.since));
    until.push_back(MicrosOf(key.until));
  }
  absl::Status s =
      WriteAll(*connection_, "INSERT INTO ledger_key SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])",
               {ids, since, until}, ids.size());
  if (!s.ok()) return s;
  const absl::StatusOr<ledger::Life> life = from.GetLife();
  if (!life.ok()) return life.status();
  const std::string made_at = absl::StrCat(life->made_at);
  std::vector<std::pair<const char*, std::string>> settings = {
      {"ledger_id", made_at}, {"made_at", made_at}, {"copied", UuidText(copy)}};
  if (!life->environment.empty()) settings.emplace_back("environment", life->environment);
  if (life->forgotten_to > 0) settings.emplace_back("log_pruned", absl::StrCat(life->forgotten_to));
  for (const auto& [name, value] : settings) {
    if (s = WriteAll(*connection_, kImportSetting, {name, value}, 1); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Import::CheckCounters() {
  const absl::StatusOr<Rows> wrong = connection_->Query(kWrongCounters, kNoValues);
  if (!wrong.ok()) return wrong.status();
  if (wrong->Number(0, 0) == 0) return absl::OkStatus();
  return absl::InternalError("an attempt counter in the database is not the sum over its requests");
}

// What can be seen may not be on the standby yet. A commit that comes after it is confirmed after it.
absl::Status Import::Confirm() {
  const absl::StatusOr<Rows> touched =
      connection_->Query("UPDATE setting SET value = value WHERE name = 'copied'", kNoValues);
  if (!touched.ok()) return touched.status();
  return connection_->Commit();
}

}  // namespace userintent::postgres
