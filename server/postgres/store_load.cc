// What a Store fetches, and how it answers from that.
#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/postgres/store.h"

namespace userintent::postgres {
namespace {

using ledger::Digest;
using ledger::Key;
using ledger::Lookup;
using ledger::Row;
using ledger::State;

constexpr char kLoadAddresses[] = "SELECT id, digest, version, confirmed, possible FROM email WHERE digest = ANY ($1)";

const std::string& OfAddressesSql() {
  static const auto* const kSql = new std::string(
      SelectRows("WHERE e.digest = ANY ($1) AND (r.state IN (1, 4) OR r.state = 2 AND r.person = ANY ($2))"));
  return *kSql;
}

// Those that the rows with these keys have replaced, or that have replaced them.
const std::string& LinkedSql() {
  static const auto* const kSql =
      new std::string(SelectRows(absl::StrCat("WHERE r.id IN (SELECT l.id FROM ", kRequestByKey,
                                              " JOIN request l ON l.email = r.email AND l.request_id IN (r.supersedes, "
                                              "r.superseded_by))")));
  return *kSql;
}

const std::string& ByIntentSql() {
  static const auto* const kSql = new std::string(
      SelectRows("WHERE right(r.user_intent_id, 8) = right($2, 8) AND r.state = 2 AND r.user_intent_id = $2 "
                 "AND c.name = $1 ORDER BY r.created_at DESC, r.request_id DESC LIMIT 1"));
  return *kSql;
}

std::string IntentKey(const Lookup& lookup) { return absl::StrCat(lookup.key->caller, "\n", *lookup.intent); }

}  // namespace

// ---- what is fetched ----

void Store::Want(const Lookup& lookup, Wants& wants) {
  const auto key = [&](const Key& one) {
    if (!rows_.try_emplace(one).second) return;
    // Only with its address, as of the same moment. The address may be forgotten while the row is still known: another
    // request of it was in a transaction that was lost.
    const auto at = running_.find(one);
    const auto kept = at == running_.end() ? kept_.end() : kept_.find(at->second.email);
    if (kept != kept_.end()) {
      Held& held = rows_[one];
      held.stored = held.now = at->second;
      by_email_[at->second.email].push_back(one);
      addresses_.try_emplace(kept->first, HeldAddress{kept->second, kept->second.counters, {}, false});
      return;
    }
    wants.callers.push_back(one.caller);
    wants.ids.push_back(one.request_id);
  };
  if (lookup.intent != nullptr) {
    if (!intents_.contains(IntentKey(lookup))) wants.intents.push_back(&lookup);
  } else {
    key(*lookup.key);
    const bool runs = running_.contains(*lookup.key);
    if ((lookup.superseded || lookup.superseding) && (!runs || running_.at(*lookup.key).record.supersedes)) {
      wants.linked_callers.push_back(lookup.key->caller);
      wants.linked_ids.push_back(lookup.key->request_id);
    }
  }
  if (lookup.other) key({lookup.key->caller, *lookup.other});
  for (const Digest* email : lookup.emails) {
    if (addresses_.try_emplace(*email).second) wants.emails.push_back(*email);
    if (!lookup.open) continue;
    bool fresh = opened_.insert(*email).second;
    for (const Digest* person : lookup.persons) {
      if (!persons_.emplace(*email, *person).second) continue;
      fresh = true;
      wants.persons.push_back(*person);
    }
    if (fresh) wants.open.push_back(*email);
  }
}

absl::Status Store::Fetch(const Wants& wants) {
  if (wants.empty()) return absl::OkStatus();
  std::vector<Statement> statements;
  const bool addresses = !wants.emails.empty();
  if (addresses) statements.push_back({kLoadAddresses, {wants.emails}});
  if (!wants.ids.empty()) statements.push_back({SelectRowsByKey(), {wants.callers, wants.ids}});
  if (!wants.open.empty()) statements.push_back({OfAddressesSql(), {wants.open, wants.persons}});
  if (!wants.linked_ids.empty()) statements.push_back({LinkedSql(), {wants.linked_callers, wants.linked_ids}});
  for (const Lookup* lookup : wants.intents) {
    statements.push_back({ByIntentSql(), {lookup->key->caller, *lookup->intent}});
  }
  ++round_trips_;
  const Waiting waiting(waiting_since_);
  const absl::StatusOr<std::vector<Rows>> answers = connection_->QueryAll(statements);
  if (!answers.ok()) return answers.status();
  for (size_t i = 0; i < answers->size(); ++i) {
    if (i == 0 && addresses) {
      Keep((*answers)[i]);
    } else if (absl::Status s = Take((*answers)[i]); !s.ok()) {
      return s;
    }
  }
  const size_t first = answers->size() - wants.intents.size();
  for (size_t i = 0; i < wants.intents.size(); ++i) {
    const Rows& rows = (*answers)[first + i];
    Key key;
    if (rows.size() > 0) {
      const absl::StatusOr<Row> row = ReadRow(rows, 0);
      if (!row.ok()) return row.status();
      key = row->record.key;
    }
    intents_[IntentKey(*wants.intents[i])] = std::move(key);
  }
  return absl::OkStatus();
}

// Addresses that were asked for.
void Store::Keep(const Rows& rows) {
  for (int at = 0; at < rows.size(); ++at) {
    HeldAddress& held = addresses_[rows.DigestAt(at, 1)];
    if (held.stored.id != 0 || held.touched) continue;
    held.stored = {rows.Number(at, 0), rows.Number(at, 2), {rows.Int(at, 3), rows.Int(at, 4)}};
    held.counters = held.stored.counters;
  }
}

// Rows, each with its address. What the transaction has already stays as it is: it may have changed it, and an older
// version of an address is the safe one.
absl::Status Store::Take(const Rows& rows) {
  for (int at = 0; at < rows.size(); ++at) {
    absl::StatusOr<Row> row = ReadRow(rows, at);
    if (!row.ok()) return row.status();
    callers_.insert(row->record.key.caller);
    const AddressState address = ReadAddress(rows, at);
    const auto [held_address, fresh] = addresses_.try_emplace(row->email);
    if (fresh) held_address->second = {address, address.counters, {}, false};
    Held& held = rows_[row->record.key];
    if (held.stored || held.now) continue;
    by_email_[row->email].push_back(row->record.key);
    held.stored = *row;
    held.now = *std::move(row);
  }
  return absl::OkStatus();
}

absl::Status Store::Prepare(absl::Span<const Lookup> lookups) {
  Wants wants;
  for (const Lookup& lookup : lookups) Want(lookup, wants);
  return Fetch(wants);
}

// ---- how it is answered ----

const Row* Store::Find(const Key& key) const {
  const auto at = rows_.find(key);
  return at == rows_.end() || !at->second.now ? nullptr : &*at->second.now;
}

std::vector<const Row*> Store::RowsOf(const Digest& email) const {
  std::vector<const Row*> rows;
  const auto at = by_email_.find(email);
  if (at == by_email_.end()) return rows;
  for (const Key& key : at->second) {
    const Row* const row = Find(key);
    if (row != nullptr && row->email == email) rows.push_back(row);
  }
  return rows;
}

// The request with this id that `own` has replaced, or that has replaced `own`: the caller's own, or else another's.
const Row* Store::FindLinked(const Row& own, const Uuid& id, bool own_replaces) const {
  const Row* const mine = Find({own.record.key.caller, id});
  if (mine != nullptr && IsLinked(own, *mine, own_replaces)) return mine;
  for (const Row* row : RowsOf(own.email)) {
    if (row->record.key.request_id == id && IsLinked(own, *row, own_replaces)) return row;
  }
  return mine;
}

const Row* Store::FindPerson(const Lookup& lookup) const {
  const Row* best = nullptr;
  const auto rank = [&lookup](const Row& row) {
    return std::make_tuple(row.record.key.caller == lookup.key->caller, row.record.created, row.record.key);
  };
  for (const Digest* email : lookup.emails) {
    for (const Row* row : RowsOf(*email)) {
      const bool asked = std::any_of(lookup.persons.begin(), lookup.persons.end(),
                                     [row](const Digest* person) { return row->person == *person; });
      if (!asked || row->record.state != State::kSucceeded) continue;
      if (best == nullptr || rank(*best) < rank(*row)) best = row;
    }
  }
  return best;
}

std::vector<Row> Store::OpenOf(const Lookup& lookup) const {
  std::vector<const Row*> open;
  for (const Digest* email : lookup.emails) {
    for (const Row* row : RowsOf(*email)) {
      if (row->record.state == State::kSending || row->record.state == State::kUnknown) open.push_back(row);
    }
  }
  std::sort(open.begin(), open.end(), [](const Row* a, const Row* b) { return IsOlder(*a, *b); });
  std::vector<Row> rows;
  for (const Row* row : open) rows.push_back(*row);
  return rows;
}

absl::StatusOr<ledger::View> Store::Load(const Lookup& lookup) {
  if (!open_) Clear();  // nothing that was read before a transaction, or between two, counts in it
  Wants wants;
  Want(lookup, wants);
  if (absl::Status s = Fetch(wants); !s.ok()) return s;
  ledger::View view;
  const auto copy = [](const Row* row) { return row == nullptr ? std::nullopt : std::optional<Row>(*row); };
  const auto counters = [this](const Digest& email) {
    const auto at = addresses_.find(email);
    return at == addresses_.end() ? ledger::Counters{} : at->second.counters;
  };
  const std::string& caller = lookup.key->caller;
  view.own = copy(Find(lookup.intent == nullptr ? *lookup.key : intents_.at(IntentKey(lookup))));
  if (lookup.other) view.other = copy(Find({caller, *lookup.other}));
  if (lookup.superseded && view.own && view.own->record.supersedes) {
    view.other = copy(FindLinked(*view.own, *view.own->record.supersedes, true));
  }
  if (lookup.superseding && view.own && view.own->record.superseded_by) {
    view.superseding = copy(FindLinked(*view.own, *view.own->record.superseded_by, false));
  }
  if (lookup.counters && view.own) view.counters = counters(view.own->email);
  for (const Digest* email : lookup.emails) view.counters += counters(*email);
  if (!lookup.WantsOpen(view.own)) return view;
  view.open = OpenOf(lookup);
  view.person = copy(FindPerson(lookup));
  return view;
}

}  // namespace userintent::postgres
