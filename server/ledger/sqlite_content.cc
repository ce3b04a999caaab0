#include "server/ledger/sqlite_content.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ledger/sqlite_rows.h"
#include "server/ledger/sqlite_schema.h"

namespace userintent::ledger {
namespace {

// Not a migration: most ledgers never have it.
constexpr char kMakeMoved[] =
    "CREATE TABLE IF NOT EXISTS moved (id INTEGER PRIMARY KEY CHECK (id = 1), place TEXT NOT NULL, "
    "database TEXT NOT NULL, copy BLOB NOT NULL CHECK (length(copy) = 16), began INTEGER NOT NULL, done INTEGER) "
    "STRICT";

// Every row of the statement as a T. `read` is false where it does not make sense.
template <typename T, typename Read>
absl::Status Tell(SqliteConnection& connection, const std::string& sql, Content::Each<T> each, Read read) {
  SqliteUse use(connection, sql);
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok() || !*more) return more.status();
    T one;
    if (!read(use, one)) return connection.Damaged("a row does not make sense");
    if (absl::Status s = each(one); !s.ok()) return s;
  }
}

}  // namespace

absl::StatusOr<Life> SqliteContent::GetLife() {
  Life life;
  life.made_at = store_.made_at();
  life.forgotten_to = store_.first_logged_ - 1;
  life.logged = store_.logged_;
  SqliteUse use(connection_, "SELECT name FROM environment");
  const absl::StatusOr<bool> known = use.Step();
  if (!known.ok()) return known.status();
  if (*known) life.environment = use.Text(0);
  return life;
}

absl::Status SqliteContent::Rows(Each<Row> each) {
  return Tell<Row>(connection_, SelectRows("ORDER BY r.id"), each, [this](const SqliteUse& use, Row& row) {
    const auto name = store_.caller_names_.find(use.Number(kCallerColumn));
    if (!ReadRow(use, row) || name == store_.caller_names_.end()) return false;
    row.record.key.caller = name->second;
    return true;
  });
}

absl::Status SqliteContent::Addresses(Each<AddressAttempts> each) {
  return Tell<AddressAttempts>(
      connection_, "SELECT digest, confirmed, possible, purged_confirmed, purged_possible FROM email ORDER BY id", each,
      [](const SqliteUse& use, AddressAttempts& address) {
        address.all = {use.Int(1), use.Int(2)};
        address.purged = {use.Int(3), use.Int(4)};
        return use.Bytes(0, address.email);
      });
}

absl::Status SqliteContent::Audit(Each<AuditEntry> each) {
  return Tell<AuditEntry>(connection_, absl::StrCat("SELECT ", kAuditColumns, " FROM audit ORDER BY seq"), each,
                          ReadAuditEntry);
}

absl::Status SqliteContent::Conflicts(Each<Conflict> each) {
  return Tell<Conflict>(connection_, absl::StrCat("SELECT ", kConflictColumns, " FROM conflict ORDER BY seq"), each,
                        ReadConflict);
}

absl::Status SqliteContent::Webhooks(Each<KeptWebhook> each) {
  return Tell<KeptWebhook>(
      connection_,
      "SELECT webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result FROM webhook ORDER BY id",
      each, [](const SqliteUse& use, KeptWebhook& kept) {
        kept.webhook = {use.Text(0), use.Text(1), use.Text(2), std::nullopt, use.Time(4)};
        if (!use.IsNull(5)) kept.due = use.Time(5);
        kept.tries = use.Int(6);
        kept.result = use.Text(7);
        return use.OptionalId(3, kept.webhook.attempt_id);
      });
}

absl::Status SqliteContent::Periods(Each<ReceiverPeriod> each) {
  return Tell<ReceiverPeriod>(connection_, "SELECT began, until FROM receiver_period ORDER BY id", each,
                              [](const SqliteUse& use, ReceiverPeriod& period) {
                                period = {use.Time(0), use.Time(1)};
                                return true;
                              });
}

absl::Status SqliteContent::Restores(Each<Restored> each) {
  return Tell<Restored>(connection_, "SELECT backup_of, served_until, acknowledged_at FROM restored ORDER BY seq", each,
                        [](const SqliteUse& use, Restored& restored) {
                          restored = {use.Number(0), use.Number(1), use.Number(2)};
                          return true;
                        });
}

absl::Status SqliteContent::Changes(Each<LoggedChange> each) {
  // The number of a row that was forgotten may be another caller's by now.
  return Tell<LoggedChange>(connection_,
                            "SELECT c.revision, r.request_id, k.name FROM change c "
                            "LEFT JOIN request r ON r.id = c.request AND r.caller = c.caller "
                            "LEFT JOIN caller k ON k.id = r.caller ORDER BY c.revision",
                            each, [](const SqliteUse& use, LoggedChange& change) {
                              change.revision = use.Number(0);
                              if (use.IsNull(1)) return true;
                              change.key.emplace().caller = use.Text(2);
                              return use.Bytes(1, change.key->request_id);
                            });
}

absl::StatusOr<std::optional<Moved>> SqliteContent::ReadMoved(SqliteConnection& connection) {
  const absl::StatusOr<int64_t> application = connection.Number("PRAGMA application_id");
  if (!application.ok()) return application.status();
  if (*application != kMovedApplicationId) return std::nullopt;
  SqliteUse use(connection, "SELECT place, database, copy, began, done FROM moved");
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  Moved moved;
  if (!*found || !use.Bytes(2, moved.copy)) return connection.Damaged("it does not say where it was copied to");
  moved.place = use.Text(0);
  moved.database = use.Text(1);
  moved.began = use.Time(3);
  if (!use.IsNull(4)) moved.done = use.Time(4);
  return moved;
}

absl::Status SqliteContent::SetMoved(const std::optional<Moved>& moved) {
  const auto write = [&]() -> absl::Status {
    if (absl::Status s = connection_.Execute(kMakeMoved); !s.ok()) return s;
    if (absl::Status s = connection_.Execute("DELETE FROM moved"); !s.ok()) return s;
    const int64_t application = moved ? kMovedApplicationId : kApplicationId;
    const std::string stamp = absl::StrCat("PRAGMA application_id = ", application);
    if (absl::Status s = connection_.Execute(stamp.c_str()); !s.ok()) return s;
    if (!moved) return connection_.Execute("DROP TABLE moved");
    SqliteUse use(connection_, "INSERT INTO moved VALUES (1, ?1, ?2, ?3, ?4, ?5)");
    use.Bind(1, moved->place).Bind(2, moved->database).Bind(3, moved->copy).Bind(4, Micros(moved->began));
    if (moved->done) use.Bind(5, Micros(*moved->done));
    return use.Run();
  };
  absl::Status s = store_.Start();
  if (s.ok()) s = write();
  if (s.ok()) s = store_.Advance(0);
  if (s.ok()) s = store_.Commit();
  if (!s.ok()) {
    store_.Rollback();
    return s;
  }
  // The head of the file alone tells it then, also an older program.
  return store_.Checkpoint();
}

}  // namespace userintent::ledger
