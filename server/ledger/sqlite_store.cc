#include "server/ledger/sqlite_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/text.h"
#include "server/base/time.h"
#include "server/ledger/sqlite_use.h"

namespace userintent::ledger {
namespace {

constexpr int kApplicationId = 0x55494c47;  // "UILG", in the file's header
constexpr int64_t kPagesToCheckWhole = 60'000;
constexpr size_t kKept = 16384;  // addresses, and rows; more than run at once

struct Migration {
  int version;
  const char* sql;
};

// Applied in order, each in one transaction, never changed once released.
//
// email: attempts of one address; kept for ever. request: one row per (caller, request_id), in the order of arrival, so
// that the rows of one batch lie together: request ids are random, and a table in their order would touch a page of its
// own for each row, twice. Two indexes are partial: of all rows only the few open ones are looked for by address, and
// only the successful ones by person (version 3).
//
// Version 2. audit: what operators did, for ever. email.purged_*: the part of its attempts whose requests were
// forgotten. request_unknown: for the list of unresolved requests; it costs nothing while a request takes its normal
// way.
//
// Version 3. request_person: within the address, whose numbers grow with time, so that the entries of one batch lie
// together. A person's digest alone is random, and took a page of its own for each call.
//
// Version 4. probe.revision: see SqliteStore::revision. restored: that this ledger is a copy which an operator put in
// place of a newer one, and knows it (docs/decisions/0008); for ever.
//
// Version 5. What a call reads of an intent that was created. The last five columns are NULL until Astra was asked
// about it again: the answer to the creation is the latest reading, and is kept once. request_intent: the end of an id
// tells enough of them apart, and a third of the bytes are fewer pages a call; the whole id is compared in the row.
constexpr Migration kMigrations[] = {
    {1, R"sql(
CREATE TABLE migration (
  version INTEGER PRIMARY KEY,
  applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE probe (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  written INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, 0);

CREATE TABLE ledger_key (
  key_id INTEGER PRIMARY KEY,
  since INTEGER NOT NULL,
  retired_at INTEGER
) STRICT;

CREATE TABLE caller (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE email (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  confirmed INTEGER NOT NULL CHECK (confirmed >= 0),
  possible INTEGER NOT NULL CHECK (possible >= 0)
) STRICT;

CREATE TABLE request (
  id INTEGER PRIMARY KEY,
  caller INTEGER NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
  sent INTEGER NOT NULL CHECK (sent BETWEEN 0 AND 2),
  reason INTEGER NOT NULL,
  http_status INTEGER NOT NULL,
  confirmed INTEGER NOT NULL CHECK (confirmed IN (0, 1)),
  user_intent_id TEXT NOT NULL,
  astra_status TEXT NOT NULL,
  astra_request_id TEXT NOT NULL,
  answered_at INTEGER,
  attempt_id BLOB NOT NULL CHECK (length(attempt_id) = 16),
  attempts INTEGER NOT NULL CHECK (attempts >= 1),
  supersedes BLOB CHECK (length(supersedes) = 16),
  superseded_by BLOB CHECK (length(superseded_by) = 16),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  key_id INTEGER NOT NULL,
  content BLOB NOT NULL CHECK (length(content) = 32),
  person BLOB NOT NULL CHECK (length(person) = 32),
  email INTEGER NOT NULL,
  UNIQUE (caller, request_id)
) STRICT;
CREATE INDEX request_open ON request (email) WHERE state IN (1, 4);
CREATE INDEX request_person ON request (person) WHERE state = 2;
)sql"},
    {2, R"sql(
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 128),
  action TEXT NOT NULL,
  caller TEXT NOT NULL,
  request_id BLOB NOT NULL CHECK (length(request_id) = 16),
  from_state INTEGER NOT NULL CHECK (from_state BETWEEN 1 AND 5),
  to_state INTEGER NOT NULL CHECK (to_state BETWEEN 1 AND 5),
  evidence TEXT NOT NULL CHECK (length(evidence) BETWEEN 1 AND 1024)
) STRICT;
CREATE INDEX audit_request ON audit (request_id);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;
CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, 'the audit table is append-only'); END;

ALTER TABLE email ADD COLUMN purged_confirmed INTEGER NOT NULL DEFAULT 0 CHECK (purged_confirmed >= 0);
ALTER TABLE email ADD COLUMN purged_possible INTEGER NOT NULL DEFAULT 0 CHECK (purged_possible >= 0);

CREATE INDEX request_unknown ON request (created_at) WHERE state = 4;
)sql"},
    {3, R"sql(
DROP INDEX request_person;
CREATE INDEX request_person ON request (email, person) WHERE state = 2;
)sql"},
    {4, R"sql(
ALTER TABLE probe ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
CREATE TABLE restored (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  backup_of INTEGER NOT NULL,
  served_until INTEGER NOT NULL,
  acknowledged_at INTEGER NOT NULL
) STRICT;
)sql"},
    {5, R"sql(
ALTER TABLE request ADD COLUMN verification_type INTEGER NOT NULL DEFAULT 0;
ALTER TABLE request ADD COLUMN read_at INTEGER;
ALTER TABLE request ADD COLUMN latest_status TEXT;
ALTER TABLE request ADD COLUMN latest_user_id TEXT;
ALTER TABLE request ADD COLUMN latest_type INTEGER;
ALTER TABLE request ADD COLUMN status_since INTEGER;
CREATE INDEX request_intent ON request (substr(user_intent_id, -8)) WHERE state = 2;
)sql"},
};
constexpr int kVersion = kMigrations[std::size(kMigrations) - 1].version;

}  // namespace

enum SqliteStore::StatementName : int {
  kStart,
  kCommit,
  kRollback,
  kFind,
  kFindIntent,
  kOpen,
  kSucceeded,
  kSending,
  kPut,
  kUpdate,
  kSetLatest,
  kAddCount,
  kAddress,
  kNewEmail,
  kNewCaller,
  kMoveEmail,
  kMergeRequests,
  kMergeCounts,
  kDropEmail,
  kMovePerson,
  kAppend,
  kOld,
  kForgetRequest,
  kAddPurged,
  kTouch,
  kStatements,
};

namespace {

// What changes while a request runs, as BindProgress binds it.
#define SET_PROGRESS                                                                               \
  "state = ?1, sent = ?2, reason = ?3, http_status = ?4, confirmed = ?5, user_intent_id = ?6, "    \
  "astra_status = ?7, astra_request_id = ?8, answered_at = ?9, attempt_id = ?10, attempts = ?11, " \
  "supersedes = ?12, superseded_by = ?13, updated_at = ?14"

// In the order of StatementName. A condition repeats its partial index's WHERE word for word, or SQLite cannot use it.
constexpr const char* kSql[] = {
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SELECT " REQUEST_COLUMNS "WHERE r.caller = ?1 AND r.request_id = ?2",
    "SELECT " REQUEST_COLUMNS
    "WHERE substr(r.user_intent_id, -8) = substr(?2, -8) AND r.state = 2 AND r.user_intent_id = ?2 AND r.caller = ?1 "
    "ORDER BY r.created_at DESC, r.request_id DESC LIMIT 1",
    "SELECT " REQUEST_COLUMNS
    "WHERE r.email = ?1 AND r.state IN (1, 4) "
    "ORDER BY r.created_at, r.caller, r.request_id",
    "SELECT " REQUEST_COLUMNS
    "WHERE r.email = ?1 AND r.person = ?2 AND r.state = 2 "
    "ORDER BY r.caller = ?3 DESC, r.created_at DESC, r.caller DESC, r.request_id DESC LIMIT 1",
    "SELECT " REQUEST_COLUMNS "WHERE r.state IN (1, 4) AND r.state = 1 LIMIT ?1",
    "INSERT INTO request (state, sent, reason, http_status, confirmed, user_intent_id, astra_status, astra_request_id, "
    "answered_at, attempt_id, attempts, supersedes, superseded_by, updated_at, caller, request_id, created_at, key_id, "
    "content, person, email, verification_type) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22) "
    "ON CONFLICT (caller, request_id) DO UPDATE SET " SET_PROGRESS
    ", created_at = ?17, key_id = ?18, content = ?19, person = ?20, email = ?21, verification_type = ?22",
    "UPDATE request SET " SET_PROGRESS " WHERE id = ?15",
    "UPDATE request SET read_at = ?3, latest_status = ?4, latest_user_id = ?5, latest_type = ?6, status_since = ?7 "
    "WHERE caller = ?1 AND request_id = ?2",
    "UPDATE email SET confirmed = confirmed + ?2, possible = possible + ?3 WHERE id = ?1",
    "SELECT id, confirmed, possible FROM email WHERE digest = ?1",
    "INSERT INTO email (digest, confirmed, possible) VALUES (?1, ?2, ?3)",
    "INSERT INTO caller (name) VALUES (?1)",
    "UPDATE email SET digest = ?2 WHERE id = ?1",
    "UPDATE request SET email = ?2 WHERE email = ?1",
    "UPDATE email SET confirmed = email.confirmed + f.confirmed, possible = email.possible + f.possible, "
    "purged_confirmed = email.purged_confirmed + f.purged_confirmed, "
    "purged_possible = email.purged_possible + f.purged_possible "
    "FROM (SELECT confirmed, possible, purged_confirmed, purged_possible FROM email WHERE id = ?1) f "
    "WHERE email.id = ?2",
    "DELETE FROM email WHERE id = ?1",
    "UPDATE request SET person = ?3 WHERE email = ?1 AND person = ?2 AND state = 2",
    "INSERT INTO audit (at, actor, action, caller, request_id, from_state, to_state, evidence) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    "SELECT " REQUEST_COLUMNS "WHERE r.id > ?1 ORDER BY r.id LIMIT ?2",
    "DELETE FROM request WHERE caller = ?1 AND request_id = ?2",
    "UPDATE email SET purged_confirmed = purged_confirmed + ?2, purged_possible = purged_possible + ?3 WHERE id = ?1",
    "UPDATE probe SET written = written + 1, revision = ?1 WHERE id = 1",
};

// As it would be read: times are kept in microseconds.
Row AsKept(Row row) {
  row.record.created = ToMicros(row.record.created);
  row.record.updated = ToMicros(row.record.updated);
  if (row.record.answer.at != absl::InfinitePast()) row.record.answer.at = ToMicros(row.record.answer.at);
  return row;
}

bool Given(const SqliteStoreOptions& options, uint64_t key_id) {
  const std::vector<uint64_t>& previous = options.previous_key_ids;
  return key_id == options.key_id || std::find(previous.begin(), previous.end(), key_id) != previous.end();
}

absl::Status Damaged(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrCat("ledger ", path, ": is damaged (", what, "); restore it or ask for help"));
}

}  // namespace

absl::Status SqliteStore::Error(const char* doing) const {
  // SQLite's words for its codes hold no data of a row; its longer messages may.
  const int code = sqlite3_extended_errcode(db_);
  const std::string text =
      absl::StrCat("ledger ", options_.path, ": cannot ", doing, ": ", sqlite3_errstr(code), " (SQLite ", code, ")");
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status SqliteStore::Execute(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? absl::OkStatus() : Error("run a statement");
}

absl::StatusOr<std::pair<int64_t, int64_t>> SqliteStore::Numbers(const char* sql, std::optional<int64_t> bound) {
  Use use(*this, sql);
  if (bound) use.Bind(1, *bound);
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  std::pair<int64_t, int64_t> numbers{};
  if (*found) numbers = {use.Number(0), use.Number(1)};
  return numbers;
}

absl::StatusOr<int64_t> SqliteStore::Number(const char* sql, std::optional<int64_t> bound) {
  const absl::StatusOr<std::pair<int64_t, int64_t>> numbers = Numbers(sql, bound);
  if (!numbers.ok()) return numbers.status();
  return numbers->first;
}

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const SqliteStoreOptions& options) {
  std::unique_ptr<SqliteStore> store(new SqliteStore(options));
  for (const auto step : {&SqliteStore::Connect, &SqliteStore::CheckOurs, &SqliteStore::CheckUndamaged,
                          &SqliteStore::Migrate, &SqliteStore::CheckKey, &SqliteStore::CheckCounters,
                          &SqliteStore::Prepare, &SqliteStore::LoadLife, &SqliteStore::LoadCallers}) {
    absl::Status status = (store.get()->*step)();
    if (absl::IsDataLoss(status) && !absl::StrContains(status.message(), "damaged")) {
      return Damaged(options.path, std::string(status.message()));
    }
    if (!status.ok()) return status;
  }
  return store;
}

SqliteStore::~SqliteStore() {
  for (sqlite3_stmt* statement : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

absl::Status SqliteStore::Connect() {
  if (options_.inspect) return ConnectToRead();
  const int flags = SQLITE_OPEN_READWRITE | (options_.for_operator ? 0 : SQLITE_OPEN_CREATE) | SQLITE_OPEN_NOMUTEX |
                    SQLITE_OPEN_EXRESCODE;
  if (sqlite3_open_v2(options_.path.c_str(), &db_, flags, options_.vfs) != SQLITE_OK) return Error("open it");
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // EXCLUSIVE before the log is first used, so that its index lives in this process's memory. EXTRA while the journal
  // of the switch to WAL is deleted: were only that undone by a power cut, the journal would come back and take all
  // with it.
  for (const char* pragma :
       {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = EXTRA", "PRAGMA journal_mode = WAL",
        options_.synchronous_normal ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL",
        "PRAGMA wal_autocheckpoint = 0", "PRAGMA journal_size_limit = 67108864", "PRAGMA cell_size_check = ON",
        "PRAGMA mmap_size = 0", "PRAGMA temp_store = MEMORY", "PRAGMA cache_size = -65536"}) {
    if (sqlite3_exec(db_, pragma, nullptr, nullptr, nullptr) == SQLITE_OK) continue;
    if ((sqlite3_errcode(db_) & 0xff) == SQLITE_BUSY) {
      return absl::FailedPreconditionError(
          absl::StrCat("ledger ", options_.path, ": another process uses it; two on one ledger would each send"));
    }
    return Error("set it up");
  }
  sqlite3_wal_hook(
      db_,
      [](void* self, sqlite3*, const char*, int frames) {
        static_cast<SqliteStore*>(self)->wal_frames_ = frames;
        return SQLITE_OK;
      },
      this);
  return absl::OkStatus();
}

absl::Status SqliteStore::ConnectToRead() {
  const std::string uri = ImmutableUri(options_.path);
  const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  if (sqlite3_open_v2(uri.c_str(), &db_, flags, options_.vfs) != SQLITE_OK) return Error("open it");
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  for (const char* pragma : {"PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0", "PRAGMA temp_store = MEMORY",
                             "PRAGMA cache_size = -65536"}) {
    if (sqlite3_exec(db_, pragma, nullptr, nullptr, nullptr) != SQLITE_OK) return Error("set it up");
  }
  if (options_.cancelled) {
    sqlite3_progress_handler(
        db_, 100'000, [](void* self) { return static_cast<SqliteStore*>(self)->options_.cancelled() ? 1 : 0; }, this);
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckOurs() {
  const absl::StatusOr<int64_t> application = Number("PRAGMA application_id");
  if (!application.ok()) return application.status();
  const absl::StatusOr<int64_t> version = Number("PRAGMA user_version");
  if (!version.ok()) return version.status();
  const absl::StatusOr<int64_t> objects = Number("SELECT count(*) FROM sqlite_schema");
  if (!objects.ok()) return objects.status();
  if (*application != kApplicationId && (*application != 0 || *objects != 0 || options_.for_operator)) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": is some other program's database"));
  }
  if (*version > kVersion) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path,
                                                      ": was written by a newer version (schema ", *version,
                                                      ", this one knows up to ", kVersion, ")"));
  }
  version_ = static_cast<int>(*version);
  return absl::OkStatus();
}

absl::Status SqliteStore::Migrate() {
  if (options_.as_it_is || options_.inspect) return absl::OkStatus();
  for (const Migration& migration : kMigrations) {
    if (migration.version <= version_) continue;
    const std::string sql =
        absl::StrCat("BEGIN IMMEDIATE;", migration.sql, "INSERT INTO migration VALUES (", migration.version, ", ",
                     Micros(options_.now()), "); PRAGMA application_id = ", kApplicationId,
                     "; PRAGMA user_version = ", migration.version, "; COMMIT;");
    if (absl::Status s = Execute(sql.c_str()); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckUndamaged() {
  const absl::StatusOr<int64_t> pages = Number("PRAGMA page_count");
  if (!pages.ok()) return pages.status();
  // A check of everything takes a second of CPU for a million requests. Of a ledger that large the attempts are
  // checked, and the requests are read once when their sum is taken.
  const char* const check = *pages <= kPagesToCheckWhole ? "PRAGMA quick_check(1)" : "PRAGMA quick_check(email)";
  Use use(*this, options_.inspect ? "PRAGMA integrity_check(1)" : check);
  const absl::StatusOr<bool> said = use.Step();
  if (!said.ok()) return said.status();
  return *said && Text(use.statement(), 0) == "ok" ? absl::OkStatus() : Damaged(options_.path, "a page does not fit");
}

absl::Status SqliteStore::CheckKey() {
  if (options_.for_operator) return absl::OkStatus();
  // One transaction: who is refused must not have changed which key is in use. Closing the connection rolls back.
  if (absl::Status s = Execute("BEGIN IMMEDIATE"); !s.ok()) return s;
  if (absl::Status s = UseKey(); !s.ok()) return s;
  if (absl::Status s = LookForOlderKeys(); !s.ok()) return s;
  Reach("during-rotation");
  return Execute("COMMIT");
}

absl::Status SqliteStore::UseKey() {
  const int64_t key = std::bit_cast<int64_t>(options_.key_id);
  const std::string insert = absl::StrCat("INSERT INTO ledger_key VALUES (", key, ", ", Micros(options_.now()),
                                          ", NULL) ON CONFLICT (key_id) DO UPDATE SET retired_at = NULL");
  const absl::StatusOr<int64_t> known = Number("SELECT count(*) FROM ledger_key WHERE retired_at IS NULL");
  if (!known.ok()) return known.status();
  if (*known == 0) return Execute(insert.c_str());
  if (*known != 1) return Damaged(options_.path, "two keys are in use");
  const absl::StatusOr<int64_t> stored = Number("SELECT key_id FROM ledger_key WHERE retired_at IS NULL");
  if (!stored.ok()) return stored.status();
  if (*stored == key) return absl::OkStatus();
  if (!Given(options_, std::bit_cast<uint64_t>(*stored))) {
    const absl::StatusOr<int64_t> rows = Number("SELECT count(*) FROM request WHERE key_id = ?1", *stored);
    if (!rows.ok()) return rows.status();
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": was made with another key (",
                                                      KeyName(std::bit_cast<uint64_t>(*stored)), ", ", *rows,
                                                      " rows under it); with this one alone it would know nobody"));
  }
  const std::string retire =
      absl::StrCat("UPDATE ledger_key SET retired_at = ", Micros(options_.now()), " WHERE retired_at IS NULL");
  if (absl::Status s = Execute(retire.c_str()); !s.ok()) return s;
  return Execute(insert.c_str());
}

// A row moves to a new key when somebody shows its content again. Until the last one has moved, its key is needed.
absl::Status SqliteStore::LookForOlderKeys() {
  const absl::StatusOr<std::vector<LedgerKey>> keys = Keys();
  if (!keys.ok()) return keys.status();
  std::string missing;
  for (const LedgerKey& key : *keys) {
    if (!key.until) continue;
    const int64_t id = std::bit_cast<int64_t>(key.id);
    const absl::StatusOr<bool> any = HasRowsUnder(key.id);
    if (!any.ok()) return any.status();
    if (Given(options_, key.id)) {
      if (*any) needed_keys_.insert(key.id);
    } else if (!*any) {
      const std::string sql = absl::StrCat("DELETE FROM ledger_key WHERE key_id = ", id);
      if (absl::Status s = Execute(sql.c_str()); !s.ok()) return s;
    } else {
      const absl::StatusOr<int64_t> rows = Number("SELECT count(*) FROM request WHERE key_id = ?1", id);
      if (!rows.ok()) return rows.status();
      absl::StrAppend(&missing, missing.empty() ? "" : " and ", *rows, " rows under the older key ", KeyName(key.id),
                      " (in use until ", absl::FormatTime("%Y-%m-%d", *key.until, absl::UTCTimeZone()), ")");
    }
  }
  if (!missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("ledger ", options_.path, ": still holds ", missing, "; give it as a previous key"));
  }
  if (needed_keys_.size() == options_.previous_key_ids.size()) return absl::OkStatus();
  // Attempts outlive the requests that a retention forgot, and nothing says which key their address is under.
  const absl::StatusOr<int64_t> purged =
      Number("SELECT EXISTS (SELECT 1 FROM email WHERE purged_confirmed + purged_possible > 0)");
  if (!purged.ok()) return purged.status();
  if (*purged != 0) needed_keys_.insert(options_.previous_key_ids.begin(), options_.previous_key_ids.end());
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckCounters() {
  if (version_ < 2 && (options_.as_it_is || options_.inspect)) return absl::OkStatus();  // written in other columns
  // Equal counters for each address (but for what was purged), in one pass over each table and without sorting a
  // million rows: each address has a weight, and the weighted sums must agree. A wrong counter changes them.
  const absl::StatusOr<std::pair<int64_t, int64_t>> counted = Numbers(
      "SELECT sum(id * 2654435761 % 4294967291 * (confirmed - purged_confirmed)), "
      "sum(id * 2654435761 % 4294967291 * (possible - purged_possible)) FROM email");
  if (!counted.ok()) return counted.status();
  Use use(*this,
          "SELECT sum(email * 2654435761 % 4294967291 * confirmed), "
          "sum(email * 2654435761 % 4294967291 * (state <> 5 AND confirmed = 0)), count(*) FROM request");
  const absl::StatusOr<bool> recomputed = use.Step();
  if (!recomputed.ok()) return recomputed.status();
  rows_ = use.Number(2);
  if (*counted == std::pair(use.Number(0), use.Number(1))) return absl::OkStatus();
  return Damaged(options_.path, "an attempt counter is not the sum over its requests");
}

absl::Status SqliteStore::Prepare() {
  if (options_.as_it_is || options_.inspect) return absl::OkStatus();
  static_assert(std::size(kSql) == kStatements);
  for (const char* sql : kSql) {
    statements_.push_back(nullptr);
    if (sqlite3_prepare_v3(db_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statements_.back(), nullptr) != SQLITE_OK) {
      return Error("prepare a statement");
    }
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::LoadLife() {
  const absl::StatusOr<int64_t> made_at = Number("SELECT applied_at FROM migration WHERE version = 1");
  if (!made_at.ok()) return made_at.status();
  made_at_ = *made_at;
  if (version_ < 4 && (options_.as_it_is || options_.inspect)) return absl::OkStatus();
  const absl::StatusOr<int64_t> revision = Number("SELECT revision FROM probe");
  if (!revision.ok()) return revision.status();
  revision_ = *revision;
  return absl::OkStatus();
}

absl::Status SqliteStore::LoadCallers() {
  Use use(*this, "SELECT id, name FROM caller");
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    std::string name = Text(use.statement(), 1);
    caller_names_.emplace(use.Number(0), name);
    caller_ids_.emplace(std::move(name), use.Number(0));
  }
}

std::string ImmutableUri(const std::string& path) {
  // "//a" would name a host; a relative path stays relative.
  return (path.starts_with("//") ? "file://" : "file:") + PercentEncoded(path, "/") + "?immutable=1";
}

int SqliteStore::changes() const { return sqlite3_total_changes(db_); }
int SqliteStore::SchemaVersion() { return kVersion; }
int64_t SqliteStore::ApplicationId() { return kApplicationId; }

absl::Status SqliteStore::Start() { return Use(*this, kStart).Run(); }

absl::Status SqliteStore::Commit() {
  absl::Status status = Use(*this, kCommit).Run();
  if (!status.ok()) return status;
  fresh_callers_.clear();
  rows_ += std::exchange(fresh_rows_, 0);
  revision_ = std::exchange(fresh_revision_, std::nullopt).value_or(revision_);
  return status;
}

void SqliteStore::Rollback() {
  // Some errors make SQLite roll back by itself.
  if (sqlite3_get_autocommit(db_) == 0) Use(*this, kRollback).Run().IgnoreError();
  for (const std::string& name : fresh_callers_) {
    const auto at = caller_ids_.find(name);
    caller_names_.erase(at->second);
    caller_ids_.erase(at);
  }
  fresh_callers_.clear();
  fresh_rows_ = 0;
  fresh_revision_.reset();
  ForgetCopies();
}

void SqliteStore::ForgetCopies() {
  addresses_.clear();
  running_.clear();
}

absl::StatusOr<Row> SqliteStore::Decode(sqlite3_stmt* s) const {
  Row row;
  Record& record = row.record;
  const auto caller = caller_names_.find(sqlite3_column_int64(s, 0));
  const int state = sqlite3_column_int(s, 2);
  const int sent = sqlite3_column_int(s, 3);
  bool ok = caller != caller_names_.end() && state >= 1 && state <= 5 && sent >= 0 && sent <= 2;
  ok = ok && Bytes(s, 1, record.key.request_id) && Bytes(s, 11, record.attempt_id) &&
       OptionalId(s, 13, record.supersedes) && OptionalId(s, 14, record.superseded_by) && Bytes(s, 18, row.content) &&
       Bytes(s, 19, row.person) && Bytes(s, 20, row.email);
  if (!ok) return Damaged(options_.path, "a row does not make sense");
  record.key.caller = caller->second;
  record.state = static_cast<State>(state);
  record.sent = static_cast<Sent>(sent);
  record.reason = sqlite3_column_int(s, 4);
  record.answer.http_status = sqlite3_column_int(s, 5);
  record.answer.confirmed = sqlite3_column_int(s, 6) != 0;
  record.answer.user_intent_id = Text(s, 7);
  record.answer.astra_status = Text(s, 8);
  record.answer.astra_request_id = Text(s, 9);
  if (sqlite3_column_type(s, 10) != SQLITE_NULL) record.answer.at = absl::FromUnixMicros(sqlite3_column_int64(s, 10));
  record.posts = sqlite3_column_int(s, 12);
  record.created = absl::FromUnixMicros(sqlite3_column_int64(s, 15));
  record.updated = absl::FromUnixMicros(sqlite3_column_int64(s, 16));
  row.key_id = std::bit_cast<uint64_t>(sqlite3_column_int64(s, 17));
  record.verification_type = sqlite3_column_int(s, 22);
  if (sqlite3_column_type(s, 23) == SQLITE_NULL) {
    record.latest = LatestOf(record);
  } else {
    record.latest = {Text(s, 24), Text(s, 25), sqlite3_column_int(s, 26),
                     absl::FromUnixMicros(sqlite3_column_int64(s, 27)),
                     absl::FromUnixMicros(sqlite3_column_int64(s, 23))};
  }
  return row;
}

absl::StatusOr<std::optional<int64_t>> SqliteStore::CallerId(const std::string& name, bool make) {
  if (const auto at = caller_ids_.find(name); at != caller_ids_.end()) return at->second;
  if (!make) return std::nullopt;
  if (absl::Status s = Use(*this, kNewCaller).Bind(1, name).Run(); !s.ok()) return s;
  const int64_t id = sqlite3_last_insert_rowid(db_);
  caller_ids_.emplace(name, id);
  caller_names_.emplace(id, name);
  fresh_callers_.push_back(name);
  return id;
}

absl::StatusOr<SqliteStore::Address> SqliteStore::AddressOf(const Digest& email) {
  if (const auto at = addresses_.find(email); at != addresses_.end()) return at->second;
  Use use(*this, kAddress);
  const absl::StatusOr<bool> found = use.Bind(1, email).Step();
  if (!found.ok()) return found.status();
  Address address;
  if (*found) {
    address.id = use.Number(0);
    address.counters = {static_cast<int>(use.Number(1)), static_cast<int>(use.Number(2))};
  }
  if (addresses_.size() >= kKept) addresses_.clear();
  addresses_.emplace(email, address);
  return address;
}

absl::Status SqliteStore::MakeAddress(const Digest& email, Counters counters) {
  Use use(*this, kNewEmail);
  use.Bind(1, email).Bind(2, int64_t{counters.confirmed}).Bind(3, int64_t{counters.possible});
  if (absl::Status s = use.Run(); !s.ok()) return s;
  addresses_[email] = {sqlite3_last_insert_rowid(db_), counters};
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Row>> SqliteStore::One(Use& use) const {
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  if (!*found) return std::nullopt;
  absl::StatusOr<Row> row = Decode(use.statement());
  if (!row.ok()) return row.status();
  return *std::move(row);
}

absl::StatusOr<std::vector<Row>> SqliteStore::All(Use& use) const {
  std::vector<Row> rows;
  for (;;) {
    absl::StatusOr<std::optional<Row>> row = One(use);
    if (!row.ok()) return row.status();
    if (!*row) return rows;
    rows.push_back(**std::move(row));
  }
}

absl::StatusOr<std::optional<Row>> SqliteStore::Find(const Key& key) {
  if (const auto at = running_.find(key); at != running_.end()) return at->second.row;
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(key.caller, false);
  if (!caller.ok()) return caller.status();
  if (!*caller) return std::nullopt;
  Use use(*this, kFind);
  use.Bind(1, **caller).Bind(2, key.request_id);
  return One(use);
}

absl::StatusOr<std::optional<Row>> SqliteStore::FindIntent(const std::string& caller, const std::string& intent) {
  const absl::StatusOr<std::optional<int64_t>> id = CallerId(caller, false);
  if (!id.ok()) return id.status();
  if (!*id) return std::nullopt;
  Use use(*this, kFindIntent);
  use.Bind(1, **id).Bind(2, intent);
  return One(use);
}

absl::StatusOr<std::vector<Row>> SqliteStore::Open(const Digest& email) {
  const absl::StatusOr<Address> address = AddressOf(email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return std::vector<Row>();
  Use use(*this, kOpen);
  use.Bind(1, address->id);
  return All(use);
}

absl::StatusOr<std::optional<Row>> SqliteStore::Succeeded(const Digest& email, const Digest& person,
                                                          const std::string& caller) {
  const absl::StatusOr<Address> address = AddressOf(email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return std::nullopt;
  const absl::StatusOr<std::optional<int64_t>> id = CallerId(caller, false);
  if (!id.ok()) return id.status();
  Use use(*this, kSucceeded);
  use.Bind(1, address->id).Bind(2, person).Bind(3, id->value_or(0));
  return One(use);
}

absl::StatusOr<Counters> SqliteStore::Count(const Digest& email) {
  const absl::StatusOr<Address> address = AddressOf(email);
  if (!address.ok()) return address.status();
  return address->counters;
}

absl::StatusOr<std::vector<Row>> SqliteStore::Sending(size_t limit) {
  Use use(*this, kSending);
  use.Bind(1, static_cast<int64_t>(limit));
  return All(use);
}

void SqliteStore::BindProgress(Use& use, const Record& record) {
  use.Bind(1, static_cast<int64_t>(record.state)).Bind(2, static_cast<int64_t>(record.sent));
  use.Bind(3, int64_t{record.reason}).Bind(4, int64_t{record.answer.http_status});
  use.Bind(5, int64_t{record.answer.confirmed}).Bind(6, record.answer.user_intent_id);
  use.Bind(7, record.answer.astra_status).Bind(8, record.answer.astra_request_id);
  if (record.answer.at != absl::InfinitePast()) use.Bind(9, Micros(record.answer.at));
  use.Bind(10, record.attempt_id).Bind(11, int64_t{record.posts});
  use.Bind(12, record.supersedes).Bind(13, record.superseded_by).Bind(14, Micros(record.updated));
}

absl::Status SqliteStore::Put(const Row& row) {
  const auto at = running_.find(row.record.key);
  if (at == running_.end()) return InsertOrReplace(row);
  const Row& before = at->second.row;
  const bool same = before.key_id == row.key_id && before.content == row.content && before.person == row.person &&
                    before.email == row.email && before.record.created == row.record.created &&
                    before.record.verification_type == row.record.verification_type;
  const int64_t id = at->second.id;
  if (!same || row.record.state != State::kSending) running_.erase(at);
  if (!same) return InsertOrReplace(row);
  Use use(*this, kUpdate);
  BindProgress(use, row.record);
  if (absl::Status s = use.Bind(15, id).Run(); !s.ok()) return s;
  if (sqlite3_changes(db_) != 1) return Damaged(options_.path, "a request that runs is gone");
  if (row.record.state == State::kSending) at->second.row = AsKept(row);
  return absl::OkStatus();
}

absl::Status SqliteStore::InsertOrReplace(const Row& row) {
  const Record& record = row.record;
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(record.key.caller, true);
  if (!caller.ok()) return caller.status();
  absl::StatusOr<Address> address = AddressOf(row.email);
  if (address.ok() && address->id == 0) {
    if (absl::Status s = MakeAddress(row.email, {}); !s.ok()) return s;
    address = AddressOf(row.email);
  }
  if (!address.ok()) return address.status();
  Use use(*this, kPut);
  BindProgress(use, record);
  use.Bind(15, **caller).Bind(16, record.key.request_id).Bind(17, Micros(record.created));
  use.Bind(18, std::bit_cast<int64_t>(row.key_id));
  use.Bind(19, row.content).Bind(20, row.person).Bind(21, address->id).Bind(22, int64_t{record.verification_type});
  sqlite3_set_last_insert_rowid(db_, 0);  // it stays so when a row is replaced
  if (absl::Status s = use.Run(); !s.ok()) return s;
  const int64_t id = sqlite3_last_insert_rowid(db_);
  if (id != 0) ++fresh_rows_;
  if (id == 0 || record.state != State::kSending) return absl::OkStatus();
  if (running_.size() >= kKept) running_.clear();
  running_.emplace(record.key, Running{id, AsKept(row)});
  return absl::OkStatus();
}

absl::Status SqliteStore::SetLatest(const Key& key, const Reading& latest) {
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(key.caller, false);
  if (!caller.ok()) return caller.status();
  if (!*caller) return absl::InternalError("no such row");
  Use use(*this, kSetLatest);
  use.Bind(1, **caller).Bind(2, key.request_id).Bind(3, Micros(latest.read_at));
  use.Bind(4, latest.astra_status).Bind(5, latest.user_id).Bind(6, int64_t{latest.verification_type});
  if (absl::Status s = use.Bind(7, Micros(latest.status_since)).Run(); !s.ok()) return s;
  return sqlite3_changes(db_) == 1 ? absl::OkStatus() : absl::InternalError("no such row");
}

absl::Status SqliteStore::AddCount(const Digest& email, Counters delta) {
  const absl::StatusOr<Address> address = AddressOf(email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return MakeAddress(email, delta);
  Use use(*this, kAddCount);
  use.Bind(1, address->id).Bind(2, int64_t{delta.confirmed}).Bind(3, int64_t{delta.possible});
  if (absl::Status s = use.Run(); !s.ok()) return s;
  if (sqlite3_changes(db_) != 1) return Damaged(options_.path, "an address has no counter");
  addresses_[email].counters += delta;
  return absl::OkStatus();
}

absl::Status SqliteStore::MoveEmail(const Digest& from, const Digest& to) {
  const absl::StatusOr<Address> source = AddressOf(from);
  if (!source.ok()) return source.status();
  if (source->id == 0) return absl::OkStatus();
  const absl::StatusOr<Address> target = AddressOf(to);
  if (!target.ok()) return target.status();
  ForgetCopies();
  if (target->id == 0) return Use(*this, kMoveEmail).Bind(1, source->id).Bind(2, to).Run();
  // Known under both, which takes a call that did not say its previous key. Reads every row; does not happen twice.
  for (const StatementName name : {kMergeRequests, kMergeCounts}) {
    if (absl::Status s = Use(*this, name).Bind(1, source->id).Bind(2, target->id).Run(); !s.ok()) return s;
  }
  return Use(*this, kDropEmail).Bind(1, source->id).Run();
}

absl::Status SqliteStore::MovePerson(const Digest& email, const Digest& from, const Digest& to) {
  const absl::StatusOr<Address> address = AddressOf(email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return absl::OkStatus();
  return Use(*this, kMovePerson).Bind(1, address->id).Bind(2, from).Bind(3, to).Run();
}

absl::Status SqliteStore::Append(const AuditEntry& entry) {
  Use use(*this, kAppend);
  use.Bind(1, Micros(entry.at)).Bind(2, entry.actor).Bind(3, entry.action);
  use.Bind(4, entry.key.caller).Bind(5, entry.key.request_id);
  use.Bind(6, static_cast<int64_t>(entry.from)).Bind(7, static_cast<int64_t>(entry.to)).Bind(8, entry.evidence);
  return use.Run();
}

absl::StatusOr<std::vector<Row>> SqliteStore::Old(absl::Time created_before, size_t limit) {
  std::vector<Row> rows;
  Use use(*this, kOld);
  use.Bind(1, std::exchange(old_to_, 0)).Bind(2, static_cast<int64_t>(limit));
  for (;;) {
    absl::StatusOr<std::optional<Row>> row = One(use);
    if (!row.ok()) return row.status();
    // What arrived after a young row is young; so not the whole table is read.
    if (!*row || (*row)->record.created >= created_before) return rows;
    old_to_ = use.Number(21);
    rows.push_back(**std::move(row));
  }
}

absl::Status SqliteStore::Purge(const Row& row, Counters counted) {
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(row.record.key.caller, false);
  if (!caller.ok()) return caller.status();
  const absl::StatusOr<Address> address = AddressOf(row.email);
  if (!address.ok()) return address.status();
  if (!*caller || address->id == 0) return absl::InternalError("no such row");
  if (absl::Status s = Use(*this, kForgetRequest).Bind(1, **caller).Bind(2, row.record.key.request_id).Run(); !s.ok()) {
    return s;
  }
  if (sqlite3_changes(db_) != 1) return absl::InternalError("no such row");
  --fresh_rows_;
  Use use(*this, kAddPurged);
  return use.Bind(1, address->id).Bind(2, int64_t{counted.confirmed}).Bind(3, int64_t{counted.possible}).Run();
}

absl::Status SqliteStore::Touch() { return Advance(0); }

absl::Status SqliteStore::Advance(int64_t beyond) {
  const int64_t next = std::max({Micros(options_.now()), revision_ + 1, beyond + 1});
  Use use(*this, kTouch);
  if (absl::Status s = use.Bind(1, next).Run(); !s.ok()) return s;
  fresh_revision_ = next;
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckpointIfLong() {
  return wal_frames_ < options_.long_log_pages ? absl::OkStatus() : Checkpoint();
}

absl::Status SqliteStore::Checkpoint() {
  Reach("before-checkpoint");
  int frames = 0;
  int copied = 0;
  const int code = sqlite3_wal_checkpoint_v2(db_, nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
  if (code != SQLITE_OK) return Error("copy its log");
  wal_frames_ = 0;
  if (frames == copied) in_file_ = revision_;
  Reach("after-checkpoint");
  return absl::OkStatus();
}

}  // namespace userintent::ledger
