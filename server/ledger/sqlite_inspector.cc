// SqliteStore as an Inspector, and what a start asks once. Statements are made for each use: a few microseconds more do
// not matter here.
#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/ledger/sqlite_rows.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

absl::StatusOr<std::vector<Row>> SqliteStore::WithId(const Uuid& request_id) {
  // A look-up for each caller: the index begins with the caller.
  std::vector<Row> rows;
  for (const auto& [caller, name] : caller_names_) {
    std::optional<Row> row;
    if (absl::Status s = Find({name, request_id}, row); !s.ok()) return s;
    if (row) rows.push_back(*std::move(row));
  }
  std::sort(rows.begin(), rows.end(), IsOlder);
  return rows;
}

absl::StatusOr<std::vector<Row>> SqliteStore::Oldest(State state, absl::Time created_before, bool not_superseded,
                                                     size_t limit) {
  // Unresolved rows have an index in this order. Those that run are few, and lie among the open ones.
  const std::string of = state == State::kUnknown ? "WHERE r.state = 4" : "WHERE r.state IN (1, 4) AND r.state = 1";
  SqliteUse use(connection_, SelectRows(absl::StrCat(of,
                                                     " AND r.created_at < ?1 AND (r.superseded_by IS NULL OR NOT "
                                                     "?2) ORDER BY r.created_at LIMIT ?3")));
  use.Bind(1, Micros(created_before)).Bind(2, int64_t{not_superseded}).Bind(3, static_cast<int64_t>(limit));
  return All(use);
}

absl::StatusOr<std::vector<AuditEntry>> SqliteStore::Audit(const std::optional<Uuid>& request_id, size_t limit) {
  std::vector<AuditEntry> entries;
  SqliteUse use(connection_, absl::StrCat("SELECT ", kAuditColumns, " FROM audit ",
                                          request_id ? "WHERE request_id = ?2 " : "", "ORDER BY seq DESC LIMIT ?1"));
  use.Bind(1, static_cast<int64_t>(limit));
  if (request_id) use.Bind(2, *request_id);
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return entries;
    ReadAuditEntry(use, entries.emplace_back());
  }
}

absl::StatusOr<std::vector<Conflict>> SqliteStore::Conflicts(const std::optional<Uuid>& request_id, size_t limit) {
  std::vector<Conflict> conflicts;
  if (version_ < 6) return conflicts;  // from before there were any
  SqliteUse use(connection_, absl::StrCat("SELECT ", kConflictColumns, " FROM conflict ",
                                          request_id ? "WHERE request_id = ?2 " : "", "ORDER BY seq DESC LIMIT ?1"));
  use.Bind(1, static_cast<int64_t>(limit));
  if (request_id) use.Bind(2, *request_id);
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return conflicts;
    ReadConflict(use, conflicts.emplace_back());
  }
}

std::string KeyName(uint64_t key_id) { return absl::StrFormat("%08x", key_id >> 32); }

absl::StatusOr<std::vector<LedgerKey>> SqliteStore::Keys() {
  std::vector<LedgerKey> keys;
  SqliteUse use(connection_,
                "SELECT key_id, since, retired_at FROM ledger_key ORDER BY retired_at IS NOT NULL, retired_at DESC");
  for (;;) {
    const absl::StatusOr<bool> more = use.Step();
    if (!more.ok()) return more.status();
    if (!*more) return keys;
    LedgerKey& key = keys.emplace_back();
    key.id = std::bit_cast<uint64_t>(use.Number(0));
    key.since = use.Time(1);
    if (!use.IsNull(2)) key.until = use.Time(2);
  }
}

absl::StatusOr<bool> SqliteStore::HasRowsUnder(uint64_t key_id) {
  const absl::StatusOr<int64_t> any =
      connection_.Number("SELECT EXISTS (SELECT 1 FROM request WHERE key_id = ?1)", std::bit_cast<int64_t>(key_id));
  if (!any.ok()) return any.status();
  return *any != 0;
}

absl::StatusOr<Counters> SqliteStore::Count(const std::vector<Digest>& emails) {
  Counters count;
  for (const Digest& email : emails) {
    const absl::StatusOr<Address> address = AddressOf(email);
    if (!address.ok()) return address.status();
    count += address->counters;
  }
  return count;
}

absl::StatusOr<bool> SqliteStore::AddOfAddresses(const std::vector<Digest>& emails, int64_t slice, int64_t& last,
                                                 std::vector<Row>& rows) {
  // No index leads from an address to all of its rows: calls ask for the open and the successful ones only.
  const absl::StatusOr<int64_t> end = connection_.Number("SELECT max(id) FROM request WHERE true");
  if (!end.ok()) return end.status();
  if (last >= *end) return false;
  for (const Digest& email : emails) {
    const absl::StatusOr<Address> address = AddressOf(email);
    if (!address.ok()) return address.status();
    if (address->id == 0) continue;
    SqliteUse use(connection_, SelectRows("WHERE r.id > ?1 AND r.id <= ?2 AND r.email = ?3 ORDER BY r.id"));
    use.Bind(1, last).Bind(2, last + slice).Bind(3, address->id);
    absl::StatusOr<std::vector<Row>> found = All(use);
    if (!found.ok()) return found.status();
    std::move(found->begin(), found->end(), std::back_inserter(rows));
  }
  last += slice;
  return true;
}

absl::StatusOr<absl::Time> SqliteStore::LastChange() {
  const absl::StatusOr<int64_t> micros = connection_.Number("SELECT max(updated_at) FROM request WHERE true");
  if (!micros.ok()) return micros.status();
  return *micros == 0 ? absl::InfinitePast() : absl::FromUnixMicros(*micros);
}

absl::StatusOr<int64_t> SqliteStore::NewestRevision() {
  if (revision_ != 0) return revision_;
  const absl::StatusOr<absl::Time> changed = LastChange();
  if (!changed.ok()) return changed.status();
  return *changed == absl::InfinitePast() ? made_at_ : std::max(Micros(*changed), made_at_);
}

absl::StatusOr<bool> SqliteStore::IsCurrentKey(uint64_t key_id) {
  const absl::StatusOr<int64_t> keys = connection_.Number(
      "SELECT count(*) FROM ledger_key WHERE key_id = ?1 AND retired_at IS NULL", std::bit_cast<int64_t>(key_id));
  if (!keys.ok()) return keys.status();
  return *keys != 0;
}

absl::Status SqliteStore::AddRestored(const Restored& restored) {
  SqliteUse use(connection_, "INSERT INTO restored (backup_of, served_until, acknowledged_at) VALUES (?1, ?2, ?3)");
  use.Bind(1, restored.backup_of).Bind(2, restored.served_until).Bind(3, restored.acknowledged_at);
  if (absl::Status s = use.Run(); !s.ok()) return s;
  return BreakLog();
}

absl::StatusOr<std::optional<Restored>> SqliteStore::LastRestored() {
  SqliteUse use(connection_, "SELECT backup_of, served_until, acknowledged_at FROM restored ORDER BY seq DESC LIMIT 1");
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  if (!*found) return std::nullopt;
  return Restored{use.Number(0), use.Number(1), use.Number(2)};
}

absl::StatusOr<int64_t> SqliteStore::AuditEntries() {
  if (version_ < 2 && (options_.as_it_is || options_.inspect)) return 0;  // from before there were any
  return connection_.Number("SELECT count(*) FROM audit");
}

absl::Status SqliteStore::Add(int attempt_limit, int64_t slice, Totals& totals) {
  {
    SqliteUse use(
        connection_,
        "SELECT state, count(*), max(id), key_id "
        "FROM (SELECT id, state, key_id FROM request WHERE id > ?1 ORDER BY id LIMIT ?2) GROUP BY state, key_id");
    use.Bind(1, totals.last_request).Bind(2, slice);
    totals.done = true;
    for (;;) {
      const absl::StatusOr<bool> more = use.Step();
      if (!more.ok()) return more.status();
      if (!*more) break;
      totals.requests.at(static_cast<size_t>(use.Number(0))) += use.Number(1);
      totals.requests_by_key[std::bit_cast<uint64_t>(use.Number(3))] += use.Number(1);
      totals.last_request = std::max(totals.last_request, use.Number(2));
      totals.done = false;
    }
  }
  SqliteUse use(connection_,
                "SELECT count(*), count(CASE WHEN confirmed >= ?3 THEN 1 END), max(id) "
                "FROM (SELECT id, confirmed FROM email WHERE id > ?1 ORDER BY id LIMIT ?2)");
  use.Bind(1, totals.last_address).Bind(2, slice).Bind(3, int64_t{attempt_limit});
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  if (*found && use.Number(0) != 0) {
    totals.addresses += use.Number(0);
    totals.addresses_at_limit += use.Number(1);
    totals.last_address = use.Number(2);
    totals.done = false;
  }
  return absl::OkStatus();
}

}  // namespace userintent::ledger
