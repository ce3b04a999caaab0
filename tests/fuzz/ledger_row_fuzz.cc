// A row of the ledger's table of requests that holds anything -> ReadRow, and what it made of it back into the real
// table.
//
// An input is a value for each column: one byte for its kind (NULL, integer, float, text, bytes), then the value. The
// oracle: a row that was read is within what the program may assume; the real table takes it, and gives it back as it
// was. The first table has the columns of the real one, and neither types nor checks, as a damaged file may.
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "server/ledger/sqlite_merged_index.h"
#include "server/ledger/sqlite_rows.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using ledger::Record;
using ledger::Row;
using ledger::SqliteConnection;
using ledger::SqliteUse;
using ledger::State;
using Part = ledger::RowChange::Part;

void Must(const absl::Status& status, const char* claim) { Check(status.ok(), claim); }

// As many as `request` has, but for its id; the last two are those of its e-mail address.
constexpr const char* kColumns[] = {"caller",
                                    "request_id",
                                    "state",
                                    "sent",
                                    "reason",
                                    "http_status",
                                    "confirmed",
                                    "user_intent_id",
                                    "astra_status",
                                    "astra_request_id",
                                    "answered_at",
                                    "attempt_id",
                                    "attempts",
                                    "supersedes",
                                    "superseded_by",
                                    "created_at",
                                    "updated_at",
                                    "key_id",
                                    "content",
                                    "person",
                                    "verification_type",
                                    "read_at",
                                    "latest_status",
                                    "latest_user_id",
                                    "latest_type",
                                    "status_since"};

SqliteConnection* Memory() {
  auto* const connection = new SqliteConnection(":memory:");
  Must(connection->Open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr), "SQLite opens memory");
  return connection;
}

const SqliteConnection& AnyTable() {
  static const SqliteConnection& table = *[] {
    SqliteConnection* const made = Memory();
    std::string columns = "id INTEGER PRIMARY KEY, email";
    for (const char* name : kColumns) columns.append(", ").append(name);
    Must(made->Execute(("CREATE TABLE request (" + columns + ")").c_str()), "the table without types is made");
    Must(made->Execute("CREATE TABLE email (id INTEGER PRIMARY KEY, digest)"), "and that of addresses");
    return made;
  }();
  return table;
}

SqliteConnection& RealTable() {
  static SqliteConnection& table = *[] {
    SqliteConnection* const made = Memory();
    Must(ledger::AddIntentEnding(*made), "its function is added");
    for (const ledger::Migration& migration : ledger::Migrations()) {
      Must(made->Execute(migration.sql), "the schema is made");
    }
    return made;
  }();
  return table;
}

class Statement {
 public:
  Statement(const SqliteConnection& connection, const std::string& sql) {
    Check(sqlite3_prepare_v2(connection.db(), sql.c_str(), -1, &statement_, nullptr) == SQLITE_OK,
          "the statement is one");
  }
  ~Statement() { sqlite3_reset(statement_); }
  sqlite3_stmt* get() const { return statement_; }

 private:
  sqlite3_stmt* statement_ = nullptr;  // kept for the life of the process
};

void BindAny(sqlite3_stmt* statement, int at, Input& input) {
  switch (input.Byte() % 6) {
    case 0:
      sqlite3_bind_null(statement, at);
      return;
    case 1:
      sqlite3_bind_int64(statement, at, input.Byte() % 8);
      return;
    case 2:
      sqlite3_bind_int64(statement, at, static_cast<int64_t>(input.Number(8)));
      return;
    case 3:
      sqlite3_bind_double(statement, at, std::bit_cast<double>(input.Number(8)));
      return;
    case 4: {
      const std::string_view text = input.Text(input.Byte());
      sqlite3_bind_text64(statement, at, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
      return;
    }
    default: {
      static constexpr size_t kSizes[] = {0, 16, 32, 16, 32, 1, 17, 300};
      const std::string bytes(input.Text(kSizes[input.Byte() % 8]));
      sqlite3_bind_blob64(statement, at, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
    }
  }
}

void Store(Input& input) {
  const SqliteConnection& table = AnyTable();
  static const Statement& address = *new Statement(table, "INSERT OR REPLACE INTO email VALUES (1, ?1)");
  static const Statement& request = *[&] {
    std::string marks;
    for (size_t i = 0; i < std::size(kColumns); ++i) marks += ", ?" + std::to_string(i + 1);
    std::string names;
    for (const char* name : kColumns) names.append(", ").append(name);
    return new Statement(table, "INSERT OR REPLACE INTO request (id, email" + names + ") VALUES (1, 1" + marks + ")");
  }();
  BindAny(address.get(), 1, input);
  for (size_t i = 0; i < std::size(kColumns); ++i) BindAny(request.get(), static_cast<int>(i) + 1, input);
  for (const Statement* statement : {&address, &request}) {
    Check(sqlite3_step(statement->get()) == SQLITE_DONE, "a table without types takes everything");
    sqlite3_reset(statement->get());
  }
}

std::optional<Row> Load(const SqliteConnection& connection, const std::string& sql) {
  SqliteUse use(connection, sql);
  const absl::StatusOr<bool> found = use.Step();
  Check(found.ok() && *found, "the row is there");
  Row row;
  return Timed([&] { return ReadRow(use, row); }) ? std::optional(std::move(row)) : std::nullopt;
}

bool Same(const Row& a, const Row& b) {
  const Record& x = a.record;
  const Record& y = b.record;
  return x.state == y.state && x.sent == y.sent && x.reason == y.reason && x.posts == y.posts &&
         x.answer.http_status == y.answer.http_status && x.answer.confirmed == y.answer.confirmed &&
         x.answer.user_intent_id == y.answer.user_intent_id && x.answer.astra_status == y.answer.astra_status &&
         x.answer.astra_request_id == y.answer.astra_request_id && x.answer.at == y.answer.at &&
         x.attempt_id == y.attempt_id && x.supersedes == y.supersedes && x.superseded_by == y.superseded_by &&
         x.created == y.created && x.updated == y.updated && x.key.request_id == y.key.request_id &&
         x.verification_type == y.verification_type && x.latest.astra_status == y.latest.astra_status &&
         x.latest.user_id == y.latest.user_id && x.latest.verification_type == y.latest.verification_type &&
         x.latest.status_since == y.latest.status_since && x.latest.read_at == y.latest.read_at &&
         a.key_id == b.key_id && a.content == b.content && a.person == b.person && a.email == b.email;
}

void CheckKept(const Row& row, bool has_reading) {
  SqliteConnection& table = RealTable();
  Must(table.Execute("DELETE FROM request; DELETE FROM email"), "the table is emptied");
  {
    SqliteUse address(table, "INSERT INTO email (id, digest, confirmed, possible) VALUES (1, ?1, 0, 0)");
    Must(address.Bind(1, row.email).Run(), "an address is written");
    SqliteUse use(table, ledger::InsertRowSql());
    const int next = Timed([&] { return BindRow(use, row, Part::kWhole); });
    Must(use.Bind(next, int64_t{1}).Bind(next + 1, int64_t{1}).Run(), "what was read can be written");
  }
  if (has_reading) {
    SqliteUse use(table, ledger::UpdateRowSql(Part::kLatest));
    const int next = Timed([&] { return BindRow(use, row, Part::kLatest); });
    Must(use.Bind(next, sqlite3_last_insert_rowid(table.db())).Run(), "and its reading");
  }
  const std::optional<Row> again = Load(table, ledger::SelectRows(""));
  Check(again.has_value(), "and is read again");
  Check(Same(*again, row), "as it was");
}

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  Store(input);
  const std::optional<Row> row = Load(AnyTable(), ledger::SelectRows(""));
  if (!row) return;
  const Record& record = row->record;
  Check(record.state >= State::kSending && record.state <= State::kReleased, "a state is one");
  Check(record.sent >= ledger::Sent::kNo && record.sent <= ledger::Sent::kYes, "and so is what was sent");
  const absl::StatusOr<int64_t> reading =
      const_cast<SqliteConnection&>(AnyTable()).Number("SELECT read_at IS NOT NULL FROM request");
  Check(reading.ok(), "the row is there");
  // A count of POSTs that is no count is what the real table's check refuses.
  if (record.posts >= 1) CheckKept(*row, *reading != 0);
}

}  // namespace userintent::fuzz
