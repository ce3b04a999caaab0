// How a SqliteStore is opened: connect, check that the file is ours and sound, bring it up to date, check the key and
// the counters, and get ready.
#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/ledger/sqlite_connection.h"
#include "server/ledger/sqlite_content.h"
#include "server/ledger/sqlite_schema.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

bool Given(const SqliteStoreOptions& options, uint64_t key_id) {
  const std::vector<uint64_t>& previous = options.previous_key_ids;
  return key_id == options.key_id || std::find(previous.begin(), previous.end(), key_id) != previous.end();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const SqliteStoreOptions& options) {
  std::unique_ptr<SqliteStore> store(new SqliteStore(options));
  for (const auto step :
       {&SqliteStore::Connect, &SqliteStore::CheckOurs, &SqliteStore::CheckUndamaged, &SqliteStore::Migrate,
        &SqliteStore::CheckKey, &SqliteStore::CheckCounters, &SqliteStore::PrepareStatements, &SqliteStore::LoadLife,
        &SqliteStore::LoadCallers, &SqliteStore::OpenIndexes}) {
    absl::Status status = (store.get()->*step)();
    if (absl::IsDataLoss(status) && !absl::StrContains(status.message(), "damaged")) {
      return store->connection_.Damaged(std::string(status.message()));
    }
    if (!status.ok()) return status;
  }
  return store;
}

SqliteStore::~SqliteStore() {
  for (sqlite3_stmt* statement : statements_) sqlite3_finalize(statement);
}

absl::Status SqliteStore::Connect() {
  if (options_.inspect) return ConnectToRead();
  const int flags = SQLITE_OPEN_READWRITE | (options_.for_operator ? 0 : SQLITE_OPEN_CREATE) | SQLITE_OPEN_NOMUTEX |
                    SQLITE_OPEN_EXRESCODE;
  if (absl::Status s = connection_.Open(options_.path, flags, options_.vfs); !s.ok()) return s;
  // EXCLUSIVE before the log is first used, so that its index lives in this process's memory. EXTRA while the journal
  // of the switch to WAL is deleted: were only that undone by a power cut, the journal would come back and take all
  // with it.
  for (const char* pragma :
       {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA synchronous = EXTRA", "PRAGMA journal_mode = WAL",
        options_.synchronous_normal ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL",
        "PRAGMA wal_autocheckpoint = 0", "PRAGMA journal_size_limit = 67108864", "PRAGMA cell_size_check = ON",
        "PRAGMA mmap_size = 0", "PRAGMA temp_store = MEMORY", "PRAGMA cache_size = -8192"}) {
    if (sqlite3_exec(connection_.db(), pragma, nullptr, nullptr, nullptr) == SQLITE_OK) continue;
    if ((sqlite3_errcode(connection_.db()) & 0xff) == SQLITE_BUSY) {
      return absl::FailedPreconditionError(
          absl::StrCat("ledger ", options_.path, ": another process uses it; two on one ledger would each send"));
    }
    return connection_.Error("set it up");
  }
  sqlite3_wal_hook(
      connection_.db(),
      [](void* self, sqlite3*, const char*, int frames) {
        static_cast<SqliteStore*>(self)->wal_frames_ = frames;
        return SQLITE_OK;
      },
      this);
  return AddIntentEnding(connection_);
}

absl::Status SqliteStore::ConnectToRead() {
  const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  if (absl::Status s = connection_.Open(ImmutableUri(options_.path), flags, options_.vfs); !s.ok()) return s;
  for (const char* pragma : {"PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0", "PRAGMA temp_store = MEMORY",
                             "PRAGMA cache_size = -65536"}) {
    if (sqlite3_exec(connection_.db(), pragma, nullptr, nullptr, nullptr) != SQLITE_OK)
      return connection_.Error("set it up");
  }
  if (options_.cancelled) {
    sqlite3_progress_handler(
        connection_.db(), 100'000,
        [](void* self) { return static_cast<SqliteStore*>(self)->options_.cancelled() ? 1 : 0; }, this);
  }
  return AddIntentEnding(connection_);
}

absl::Status SqliteStore::CheckOurs() {
  const absl::StatusOr<int64_t> application = connection_.Number("PRAGMA application_id");
  if (!application.ok()) return application.status();
  const absl::StatusOr<int64_t> version = connection_.Number("PRAGMA user_version");
  if (!version.ok()) return version.status();
  const absl::StatusOr<int64_t> objects = connection_.Number("SELECT count(*) FROM sqlite_schema");
  if (!objects.ok()) return objects.status();
  const absl::StatusOr<std::optional<Moved>> moved = SqliteContent::ReadMoved(connection_);
  if (!moved.ok()) return moved.status();
  moved_ = moved->has_value();
  if (moved_ && !options_.moved_too) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": ", WhyRefused(**moved)));
  }
  if (!moved_ && *application != kApplicationId && (*application != 0 || *objects != 0 || options_.for_operator)) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": is some other program's database"));
  }
  if (*version > SchemaVersion()) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path,
                                                      ": was written by a newer version (schema ", *version,
                                                      ", this one knows up to ", SchemaVersion(), ")"));
  }
  version_ = static_cast<int>(*version);
  return absl::OkStatus();
}

// All of them in one transaction: a start that is cut off leaves the schema that was there, so that the copy that the
// next one keeps (KeepCopy) is still one that the version before can read.
absl::Status SqliteStore::Migrate() {
  if (options_.as_it_is || options_.inspect || version_ == SchemaVersion()) return absl::OkStatus();
  std::string sql = "BEGIN IMMEDIATE;";
  for (const Migration& migration : Migrations()) {
    if (migration.version <= version_) continue;
    absl::StrAppend(&sql, migration.sql, "INSERT INTO migration VALUES (", migration.version, ", ",
                    Micros(options_.now()), ");");
  }
  absl::StrAppend(&sql, "PRAGMA application_id = ", moved_ ? kMovedApplicationId : kApplicationId,
                  "; PRAGMA user_version = ", SchemaVersion(), ";");
  if (absl::Status s = connection_.Execute(sql.c_str()); !s.ok()) return s;
  Reach("migration-written");
  if (absl::Status s = connection_.Execute("COMMIT"); !s.ok()) return s;
  Reach("migration-committed");
  version_ = SchemaVersion();
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckUndamaged() {
  const absl::StatusOr<int64_t> pages = connection_.Number("PRAGMA page_count");
  if (!pages.ok()) return pages.status();
  // A check of everything takes a second of CPU for a million requests. Of a ledger that large the attempts are
  // checked, and the requests are read once when their sum is taken; OpenIndexes compares numbers of rows and entries.
  const bool small = *pages <= options_.pages_to_check_whole;
  const char* const check = small ? "PRAGMA quick_check(1)" : "PRAGMA quick_check(email)";
  const bool whole = options_.inspect || options_.check_whole;
  SqliteUse use(connection_, whole ? "PRAGMA integrity_check(1)" : check);
  const absl::StatusOr<bool> said = use.Step();
  if (!said.ok()) return said.status();
  if (!*said || use.Text(0) != "ok") {
    return connection_.Damaged(whole ? "a page or an index does not fit" : "a page does not fit");
  }
  if (whole) return CheckPartialIndexes();
  return small ? CheckIndexes() : absl::OkStatus();
}

absl::Status SqliteStore::CheckIndexes() {
  if (version_ < 9) return absl::OkStatus();  // SQLite has looked after them
  if (absl::Status s = MergedIndex<RequestKey>::Check(connection_); !s.ok()) return s;
  if (absl::Status s = MergedIndex<EmailKey>::Check(connection_); !s.ok()) return s;
  return MergedIndex<IntentKey>::Check(connection_);
}

absl::Status SqliteStore::OpenIndexes() {
  if (options_.as_it_is || options_.inspect) return absl::OkStatus();
  if (absl::Status s = request_keys_.Open(rows_); !s.ok()) return s;
  if (absl::Status s = email_keys_.Open(counted_.addresses); !s.ok()) return s;
  return intent_keys_.Open(counted_.succeeded);
}

// Newer versions of SQLite miss what a partial index has too much: their integrity_check asks only whether each row is
// in it (seen with 3.46 and 3.51, not with 3.40).
absl::Status SqliteStore::CheckPartialIndexes() {
  std::vector<std::string> counts;
  {
    SqliteUse indexes(
        connection_,
        "SELECT 'SELECT (SELECT count(*) FROM \"' || tbl_name || '\" INDEXED BY \"' || name || '\" ' || "
        "predicate || ') = (SELECT count(*) FROM \"' || tbl_name || '\" NOT INDEXED ' || predicate || ')' "
        "FROM (SELECT name, tbl_name, substr(sql, instr(sql, ' WHERE ')) AS predicate FROM sqlite_schema "
        "WHERE type = 'index' AND instr(sql, ' WHERE ') > 0)");
    for (;;) {
      const absl::StatusOr<bool> more = indexes.Step();
      if (!more.ok()) return more.status();
      if (!*more) break;
      counts.emplace_back(indexes.Text(0));
    }
  }
  for (const std::string& sql : counts) {
    const absl::StatusOr<int64_t> same = connection_.Number(sql.c_str());
    if (!same.ok()) return same.status();
    if (*same != 1) return connection_.Damaged("an index holds entries that it should not");
  }
  return CheckIndexes();
}

absl::Status SqliteStore::CheckKey() {
  if (options_.for_operator) return absl::OkStatus();
  // One transaction: who is refused must not have changed which key is in use. Closing the connection rolls back.
  if (absl::Status s = connection_.Execute("BEGIN IMMEDIATE"); !s.ok()) return s;
  if (absl::Status s = UseKey(); !s.ok()) return s;
  if (absl::Status s = LookForOlderKeys(); !s.ok()) return s;
  if (absl::Status s = UseEnvironment(); !s.ok()) return s;
  Reach("during-rotation");
  return connection_.Execute("COMMIT");
}

absl::Status SqliteStore::UseKey() {
  const int64_t key = std::bit_cast<int64_t>(options_.key_id);
  const std::string insert = absl::StrCat("INSERT INTO ledger_key VALUES (", key, ", ", Micros(options_.now()),
                                          ", NULL) ON CONFLICT (key_id) DO UPDATE SET retired_at = NULL");
  const absl::StatusOr<int64_t> known = connection_.Number("SELECT count(*) FROM ledger_key WHERE retired_at IS NULL");
  if (!known.ok()) return known.status();
  if (*known == 0) return connection_.Execute(insert.c_str());
  if (*known != 1) return connection_.Damaged("two keys are in use");
  const absl::StatusOr<int64_t> stored = connection_.Number("SELECT key_id FROM ledger_key WHERE retired_at IS NULL");
  if (!stored.ok()) return stored.status();
  if (*stored == key) return absl::OkStatus();
  if (!Given(options_, std::bit_cast<uint64_t>(*stored))) {
    const absl::StatusOr<int64_t> rows = connection_.Number("SELECT count(*) FROM request WHERE key_id = ?1", *stored);
    if (!rows.ok()) return rows.status();
    return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": was made with another key (",
                                                      KeyName(std::bit_cast<uint64_t>(*stored)), ", ", *rows,
                                                      " rows under it); with this one alone it would know nobody"));
  }
  const std::string retire =
      absl::StrCat("UPDATE ledger_key SET retired_at = ", Micros(options_.now()), " WHERE retired_at IS NULL");
  if (absl::Status s = connection_.Execute(retire.c_str()); !s.ok()) return s;
  return connection_.Execute(insert.c_str());
}

absl::Status SqliteStore::UseEnvironment() {
  if (options_.environment.empty()) return absl::OkStatus();
  {
    SqliteUse use(connection_, "SELECT name FROM environment");
    const absl::StatusOr<bool> known = use.Step();
    if (!known.ok()) return known.status();
    if (*known) {
      const std::string name = use.Text(0);
      if (name == options_.environment) return absl::OkStatus();
      return absl::FailedPreconditionError(absl::StrCat("ledger ", options_.path, ": ", OfAnotherEnvironment(name)));
    }
  }
  SqliteUse use(connection_, "INSERT INTO environment VALUES (1, ?1, ?2)");
  use.Bind(1, options_.environment);
  use.Bind(2, Micros(options_.now()));
  return use.Step().status();
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
      if (absl::Status s = connection_.Execute(sql.c_str()); !s.ok()) return s;
    } else {
      const absl::StatusOr<int64_t> rows = connection_.Number("SELECT count(*) FROM request WHERE key_id = ?1", id);
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
      connection_.Number("SELECT EXISTS (SELECT 1 FROM email WHERE purged_confirmed + purged_possible > 0)");
  if (!purged.ok()) return purged.status();
  if (*purged != 0) needed_keys_.insert(options_.previous_key_ids.begin(), options_.previous_key_ids.end());
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckCounters() {
  if (version_ < 2 && (options_.as_it_is || options_.inspect)) return absl::OkStatus();  // written in other columns
  // Equal counters for each address (but for what was purged), in one pass over each table and without sorting a
  // million rows: each address has a weight, and the weighted sums must agree. A wrong counter changes them.
  SqliteUse addresses(connection_,
                      "SELECT sum(id * 2654435761 % 4294967291 * (confirmed - purged_confirmed)), "
                      "sum(id * 2654435761 % 4294967291 * (possible - purged_possible)), count(*) FROM email");
  const absl::StatusOr<bool> counted = addresses.Step();
  if (!counted.ok()) return counted.status();
  SqliteUse use(connection_,
                "SELECT sum(email * 2654435761 % 4294967291 * confirmed), "
                "sum(email * 2654435761 % 4294967291 * (state <> 5 AND confirmed = 0)), count(*), "
                "count(CASE WHEN state = 2 THEN 1 END) FROM request");
  const absl::StatusOr<bool> recomputed = use.Step();
  if (!recomputed.ok()) return recomputed.status();
  rows_ = use.Number(2);
  counted_ = {addresses.Number(2), use.Number(3)};
  if (addresses.Number(0) == use.Number(0) && addresses.Number(1) == use.Number(1)) return absl::OkStatus();
  return connection_.Damaged("an attempt counter is not the sum over its requests");
}

absl::Status SqliteStore::PrepareStatements() {
  if (options_.as_it_is || options_.inspect) return absl::OkStatus();
  for (const std::string& sql : Sql()) {
    statements_.push_back(nullptr);
    if (sqlite3_prepare_v3(connection_.db(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statements_.back(),
                           nullptr) != SQLITE_OK) {
      return connection_.Error("prepare a statement");
    }
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::LoadLife() {
  const absl::StatusOr<int64_t> made_at = connection_.Number("SELECT applied_at FROM migration WHERE version = 1");
  if (!made_at.ok()) return made_at.status();
  made_at_ = *made_at;
  if (version_ < 4 && (options_.as_it_is || options_.inspect)) return absl::OkStatus();
  const absl::StatusOr<int64_t> revision = connection_.Number("SELECT revision FROM probe");
  if (!revision.ok()) return revision.status();
  revision_ = *revision;
  if (version_ < 6 && (options_.as_it_is || options_.inspect)) return absl::OkStatus();
  const absl::StatusOr<std::pair<int64_t, int64_t>> log =
      connection_.Numbers("SELECT (SELECT min(revision) FROM change), (SELECT max(revision) FROM change)");
  if (!log.ok()) return log.status();
  first_logged_ = log->first == 0 ? 1 : log->first;
  logged_ = log->second;
  return absl::OkStatus();
}

absl::Status SqliteStore::LoadCallers() {
  SqliteUse use(connection_, "SELECT id, name FROM caller");
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return absl::OkStatus();
    std::string name = use.Text(1);
    caller_names_.emplace(use.Number(0), name);
    caller_ids_.emplace(std::move(name), use.Number(0));
  }
}

}  // namespace userintent::ledger
