// What a SqliteStore is asked before something is decided.
#include <algorithm>
#include <iterator>
#include <utility>

#include "server/ledger/sqlite_rows.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

constexpr size_t kAddressesKept = 16384;  // addresses; more than run at once

}  // namespace

absl::StatusOr<std::optional<int64_t>> SqliteStore::CallerId(const std::string& name, bool make) {
  if (const auto at = caller_ids_.find(name); at != caller_ids_.end()) return at->second;
  if (!make) return std::nullopt;
  if (absl::Status s = Use(kNewCaller).Bind(1, name).Run(); !s.ok()) return s;
  const int64_t id = sqlite3_last_insert_rowid(connection_.db());
  caller_ids_.emplace(name, id);
  caller_names_.emplace(id, name);
  fresh_callers_.push_back(name);
  return id;
}

absl::StatusOr<SqliteStore::Address> SqliteStore::AddressOf(const Digest& email) {
  if (const auto at = addresses_.find(email); at != addresses_.end()) return at->second;
  const absl::StatusOr<std::optional<int64_t>> id = email_keys_.Find({email});
  if (!id.ok()) return id.status();
  Address address;
  if (*id) {
    SqliteUse use = Use(kAddress);
    const absl::StatusOr<bool> found = use.Bind(1, **id).Step();
    if (!found.ok()) return found.status();
    if (!*found) return connection_.Damaged("an address is gone");
    address = {**id, {static_cast<int>(use.Number(0)), static_cast<int>(use.Number(1))}};
  }
  if (addresses_.size() >= kAddressesKept) addresses_.clear();
  addresses_.emplace(email, address);
  return address;
}

absl::StatusOr<std::optional<Row>> SqliteStore::One(SqliteUse& use) const {
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  if (!*found) return std::nullopt;
  std::optional<Row> row(std::in_place);
  const auto caller = caller_names_.find(use.Number(kCallerColumn));
  if (caller == caller_names_.end() || !ReadRow(use, *row)) return connection_.Damaged("a row does not make sense");
  row->record.key.caller = caller->second;
  return row;
}

absl::StatusOr<std::vector<Row>> SqliteStore::All(SqliteUse& use) const {
  std::vector<Row> rows;
  for (;;) {
    absl::StatusOr<std::optional<Row>> row = One(use);
    if (!row.ok()) return row.status();
    if (!*row) return rows;
    rows.push_back(**std::move(row));
  }
}

absl::Status SqliteStore::Find(const Key& key, std::optional<Row>& row) {
  if (const auto at = running_.find(key); at != running_.end()) {
    row = at->second;
    return absl::OkStatus();
  }
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(key.caller, false);
  if (!caller.ok() || !*caller) return caller.status();
  const absl::StatusOr<std::optional<int64_t>> handle = request_keys_.Find({**caller, key.request_id});
  if (!handle.ok() || !*handle) return handle.status();
  absl::StatusOr<std::optional<Row>> found = ById(**handle);
  if (!found.ok()) return found.status();
  if (!*found) return connection_.Damaged("a request is gone");
  row = *std::move(found);
  return absl::OkStatus();
}

// The SUCCEEDED rows with this intent, the newest first.
absl::StatusOr<std::vector<Row>> SqliteStore::WithIntent(const std::string& intent) {
  const absl::StatusOr<std::vector<int64_t>> handles = intent_keys_.FindAll(IntentKeyOf(intent));
  if (!handles.ok()) return handles.status();
  std::vector<Row> rows;
  for (const int64_t handle : *handles) {
    absl::StatusOr<std::optional<Row>> row = ById(handle);
    if (!row.ok()) return row.status();
    if (!*row || (*row)->record.state != State::kSucceeded) continue;
    if ((*row)->record.answer.user_intent_id == intent) rows.push_back(**std::move(row));
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return IsOlder(b, a); });
  return rows;
}

absl::Status SqliteStore::FindIntent(const std::string& caller, const std::string& intent, std::optional<Row>& row) {
  absl::StatusOr<std::vector<Row>> rows = WithIntent(intent);
  if (!rows.ok()) return rows.status();
  const auto own = [&caller](const Row& one) { return one.record.key.caller == caller; };
  const auto found = std::find_if(rows->begin(), rows->end(), own);
  if (found != rows->end()) row = std::move(*found);
  return absl::OkStatus();
}

absl::StatusOr<View> SqliteStore::Load(const Lookup& lookup) {
  View view;
  const Key& key = *lookup.key;
  absl::Status s = lookup.intent == nullptr ? Find(key, view.own) : FindIntent(key.caller, *lookup.intent, view.own);
  if (s.ok() && lookup.other) s = Find({key.caller, *lookup.other}, view.other);
  if (s.ok() && lookup.superseded && view.own && view.own->record.supersedes) {
    s = FindLinked(*view.own, *view.own->record.supersedes, true, view.other);
  }
  if (s.ok() && lookup.superseding && view.own && view.own->record.superseded_by) {
    s = FindLinked(*view.own, *view.own->record.superseded_by, false, view.superseding);
  }
  if (!s.ok()) return s;
  if (lookup.counters && view.own) {
    const absl::StatusOr<Address> address = AddressOf(view.own->email);
    if (!address.ok()) return address.status();
    view.counters = address->counters;
  }
  if (!lookup.emails.empty()) {
    if (s = LoadAddresses(lookup, view); !s.ok()) return s;
  }
  return view;
}

// The request with this id that `own` has replaced, or that has replaced `own`: the caller's own, or else another's.
absl::Status SqliteStore::FindLinked(const Row& own, const Uuid& id, bool own_replaces, std::optional<Row>& into) {
  const auto linked = [&](const Row& row) { return IsLinked(own, row, own_replaces); };
  if (absl::Status s = Find({own.record.key.caller, id}, into); !s.ok()) return s;
  if (into && linked(*into)) return absl::OkStatus();
  absl::StatusOr<std::vector<Row>> all = WithId(id);
  if (!all.ok()) return all.status();
  const auto found = std::find_if(all->begin(), all->end(), linked);
  if (found != all->end()) into = std::move(*found);
  return absl::OkStatus();
}

absl::Status SqliteStore::LoadAddresses(const Lookup& lookup, View& view) {
  const bool all = lookup.WantsOpen(view.own);
  std::optional<int64_t> caller;
  for (const Digest* email : lookup.emails) {
    const absl::StatusOr<Address> address = AddressOf(*email);
    if (!address.ok()) return address.status();
    view.counters += address->counters;
    if (!all || address->id == 0) continue;
    SqliteUse open = Use(kOpen);
    open.Bind(1, address->id);
    absl::StatusOr<std::vector<Row>> rows = All(open);
    if (!rows.ok()) return rows.status();
    std::move(rows->begin(), rows->end(), std::back_inserter(view.open));
    for (const Digest* person : lookup.persons) {
      if (!caller) {
        const absl::StatusOr<std::optional<int64_t>> id = CallerId(lookup.key->caller, false);
        if (!id.ok()) return id.status();
        caller = id->value_or(0);
      }
      SqliteUse use = Use(kPerson);
      use.Bind(1, address->id).Bind(2, *person).Bind(3, *caller);
      absl::StatusOr<std::optional<Row>> found = One(use);
      if (!found.ok()) return found.status();
      if (!*found) continue;
      const auto own = [&lookup](const Row& row) { return row.record.key.caller == lookup.key->caller; };
      const bool better =
          !view.person || (own(**found) != own(*view.person) ? own(**found) : IsOlder(*view.person, **found));
      if (better) view.person = *std::move(found);
    }
  }
  std::sort(view.open.begin(), view.open.end(), IsOlder);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Row>> SqliteStore::Sending(size_t limit) {
  SqliteUse use = Use(kSending);
  use.Bind(1, static_cast<int64_t>(limit));
  return All(use);
}

absl::StatusOr<OldRows> SqliteStore::NextOldRows(absl::Time created_before, size_t limit) {
  OldRows old;
  {
    SqliteUse use = Use(kOld);
    use.Bind(1, std::exchange(old_to_, 0)).Bind(2, static_cast<int64_t>(limit));
    for (;;) {
      absl::StatusOr<std::optional<Row>> row = One(use);
      if (!row.ok()) return row.status();
      // What arrived after a young row is young; so not the whole table is read.
      if (!*row || (*row)->record.created >= created_before) break;
      old_to_ = (*row)->handle;
      old.rows.push_back(**std::move(row));
    }
  }
  for (const Row& row : old.rows) {
    for (const std::optional<Uuid>& id : {row.record.supersedes, row.record.superseded_by}) {
      std::optional<Row> linked;
      if (!id) continue;
      if (absl::Status s = Find({row.record.key.caller, *id}, linked); !s.ok()) return s;
      if (linked) old.linked.push_back(*std::move(linked));
    }
  }
  return old;
}

}  // namespace userintent::ledger
