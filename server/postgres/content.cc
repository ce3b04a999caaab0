#include "server/postgres/content.h"

#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/postgres/rows.h"

namespace userintent::postgres {
namespace {

// Every row of the statement as a T, a slice at a time. `part` names the cursor: what is prepared to fetch from one
// knows its columns.
template <typename T, typename Read>
absl::Status Tell(Connection& connection, const char* part, const std::string& sql, ledger::Content::Each<T> each,
                  Read read) {
  if (absl::Status s = connection.Execute(absl::StrCat("DECLARE ", part, " NO SCROLL CURSOR FOR ", sql)); !s.ok()) {
    return s;
  }
  const std::string fetch = absl::StrCat("FETCH FORWARD 2000 FROM ", part);
  for (;;) {
    const absl::StatusOr<Rows> rows = connection.Query(fetch, std::initializer_list<Value>{});
    if (!rows.ok()) return rows.status();
    if (rows->size() == 0) return connection.Execute(absl::StrCat("CLOSE ", part));
    for (int at = 0; at < rows->size(); ++at) {
      const absl::StatusOr<T> one = read(*rows, at);
      if (!one.ok()) return one.status();
      if (absl::Status s = each(*one); !s.ok()) return s;
    }
  }
}

}  // namespace

absl::StatusOr<ledger::Life> Content::GetLife() {
  const absl::StatusOr<postgres::Rows> rows = connection_.Query(
      "SELECT (SELECT value::bigint FROM setting WHERE name = 'made_at'), "
      "(SELECT value::bigint FROM setting WHERE name = 'ledger_id'), "
      "coalesce((SELECT value FROM setting WHERE name = 'environment'), ''), "
      "coalesce((SELECT value::bigint FROM setting WHERE name = 'log_pruned'), 0), "
      "coalesce((SELECT max(revision) FROM change), 0)",
      std::initializer_list<Value>{});
  if (!rows.ok()) return rows.status();
  if (rows->Number(0, 0) != rows->Number(0, 1)) return absl::InternalError("it is no copy: it has an id of its own");
  return ledger::Life{rows->Number(0, 0), rows->Text(0, 2), rows->Number(0, 3), rows->Number(0, 4)};
}

absl::StatusOr<std::vector<ledger::LedgerKey>> Content::Keys() {
  const absl::StatusOr<postgres::Rows> rows =
      connection_.Query(absl::StrCat("SELECT ", kKeyColumns, " FROM ledger_key"), std::initializer_list<Value>{});
  if (!rows.ok()) return rows.status();
  std::vector<ledger::LedgerKey> keys;
  for (int at = 0; at < rows->size(); ++at) keys.push_back(ReadKey(*rows, at));
  return keys;
}

absl::Status Content::Rows(Each<ledger::Row> each) {
  return Tell<ledger::Row>(connection_, "requests", SelectRows("ORDER BY r.id"), each,
                           [](const postgres::Rows& rows, int at) { return ReadRow(rows, at); });
}

absl::Status Content::Addresses(Each<ledger::AddressAttempts> each) {
  return Tell<ledger::AddressAttempts>(
      connection_, "addresses", "SELECT digest, confirmed, possible, purged_confirmed, purged_possible FROM email",
      each, [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::AddressAttempts> {
        return ledger::AddressAttempts{
            rows.DigestAt(at, 0), {rows.Int(at, 1), rows.Int(at, 2)}, {rows.Int(at, 3), rows.Int(at, 4)}};
      });
}

absl::Status Content::Audit(Each<ledger::AuditEntry> each) {
  return Tell<ledger::AuditEntry>(connection_, "entries",
                                  absl::StrCat("SELECT ", kAuditColumns, " FROM audit ORDER BY seq"), each,
                                  [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::AuditEntry> {
                                    return ReadAuditEntry(rows, at);
                                  });
}

absl::Status Content::Conflicts(Each<ledger::Conflict> each) {
  return Tell<ledger::Conflict>(
      connection_, "conflicts", absl::StrCat("SELECT ", kConflictColumns, " FROM conflict ORDER BY seq"), each,
      [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::Conflict> { return ReadConflict(rows, at); });
}

absl::Status Content::Webhooks(Each<ledger::KeptWebhook> each) {
  return Tell<ledger::KeptWebhook>(
      connection_, "webhooks",
      "SELECT webhook_id, type, resource_id, attempt_id, received_at, due_at, tries, result FROM webhook ORDER BY id",
      each, [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::KeptWebhook> {
        ledger::KeptWebhook kept;
        kept.webhook = {rows.Text(at, 0), rows.Text(at, 1), rows.Text(at, 2), rows.OptionalId(at, 3), rows.Time(at, 4)};
        if (!rows.IsNull(at, 5)) kept.due = rows.Time(at, 5);
        kept.tries = rows.Int(at, 6);
        kept.result = rows.Text(at, 7);
        return kept;
      });
}

absl::Status Content::Periods(Each<ledger::ReceiverPeriod> each) {
  return Tell<ledger::ReceiverPeriod>(connection_, "periods", "SELECT began, until FROM receiver_period ORDER BY id",
                                      each,
                                      [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::ReceiverPeriod> {
                                        return ledger::ReceiverPeriod{rows.Time(at, 0), rows.Time(at, 1)};
                                      });
}

absl::Status Content::Restores(Each<ledger::Restored> each) {
  return Tell<ledger::Restored>(connection_, "restores",
                                "SELECT backup_of, served_until, acknowledged_at FROM restored ORDER BY seq", each,
                                [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::Restored> {
                                  return ledger::Restored{rows.Number(at, 0), rows.Number(at, 1), rows.Number(at, 2)};
                                });
}

absl::Status Content::Changes(Each<ledger::LoggedChange> each) {
  return Tell<ledger::LoggedChange>(
      connection_, "changes",
      "SELECT n.revision, k.name, r.request_id FROM change n LEFT JOIN request r ON r.id = n.request "
      "LEFT JOIN caller k ON k.id = r.caller ORDER BY n.revision",
      each, [](const postgres::Rows& rows, int at) -> absl::StatusOr<ledger::LoggedChange> {
        ledger::LoggedChange change;
        change.revision = rows.Number(at, 0);
        if (!rows.IsNull(at, 1)) change.key = {rows.Text(at, 1), rows.Id(at, 2)};
        return change;
      });
}

}  // namespace userintent::postgres
