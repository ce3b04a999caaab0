#include "server/ledger/memory_store.h"

#include <algorithm>

namespace userintent::ledger {

absl::Status MemoryStore::Start() {
  if (open_) return absl::InternalError("a transaction is open");
  open_ = true;
  audit_before_ = audit_.size();
  conflicts_before_ = conflicts_.size();
  log_before_ = log_.size();
  return absl::OkStatus();
}

absl::Status MemoryStore::Commit() {
  if (!open_) return absl::InternalError("no transaction is open");
  open_ = false;
  undo_.clear();
  webhooks_.Commit();
  return absl::OkStatus();
}

void MemoryStore::Rollback() {
  auto undo = std::move(undo_);
  undo_.clear();
  for (auto it = undo.rbegin(); it != undo.rend(); ++it) {
    if (auto* row = std::get_if<RowUndo>(&*it)) {
      SetRow(row->key, std::move(row->row));
    } else if (auto* count = std::get_if<CountUndo>(&*it)) {
      SetAddress(count->email, count->address);
    }
  }
  undo_.clear();
  if (open_) {
    audit_.resize(audit_before_);
    conflicts_.resize(conflicts_before_);
    log_.resize(log_before_);
  }
  webhooks_.Rollback();
  open_ = false;
}

void MemoryStore::Index(const Row* before, const Row* after) {
  const auto move = [](auto& index, const auto* from, const auto* to, const Key& key) {
    if (from == to || (from != nullptr && to != nullptr && *from == *to)) return;
    if (from != nullptr) {
      const auto at = index.find(*from);
      std::erase(at->second, key);
      if (at->second.empty()) index.erase(at);
    }
    if (to != nullptr) index[*to].push_back(key);
  };
  const auto email = [](const Row* row) { return row != nullptr ? &row->email : nullptr; };
  const auto person = [](const Row* row) {
    return row != nullptr && row->record.state == State::kSucceeded ? &row->person : nullptr;
  };
  const auto intent = [](const Row* row) {
    return row != nullptr && row->record.state == State::kSucceeded ? &row->record.answer.user_intent_id : nullptr;
  };
  const Key& key = (before != nullptr ? before : after)->record.key;
  move(by_email_, email(before), email(after), key);
  move(by_person_, person(before), person(after), key);
  move(by_intent_, intent(before), intent(after), key);
  const auto is_unknown = [](const Row* row) { return row != nullptr && row->record.state == State::kUnknown; };
  if (is_unknown(before)) unknown_.erase({before->record.created, key});
  if (is_unknown(after)) unknown_.emplace(after->record.created, key);
}

void MemoryStore::SetRow(const Key& key, std::optional<Row> row) {
  const auto at = rows_.find(key);
  if (at == rows_.end()) {
    undo_.push_back(RowUndo{key, std::nullopt});
    if (!row) return;
    if (row->handle == 0) row->handle = ++last_arrival_;
    arrivals_.emplace(row->handle, key);
    Index(nullptr, &*row);
    rows_.emplace(key, *std::move(row));
  } else if (row) {
    Index(&at->second, &*row);
    std::swap(at->second, *row);
    undo_.push_back(RowUndo{key, std::move(row)});
  } else {
    Index(&at->second, nullptr);
    arrivals_.erase(at->second.handle);
    undo_.push_back(RowUndo{key, std::move(at->second)});
    rows_.erase(at);
  }
}

void MemoryStore::SetAddress(const Digest& email, std::optional<Address> address) {
  const auto at = addresses_.find(email);
  undo_.push_back(CountUndo{email, at == addresses_.end() ? std::nullopt : std::optional<Address>(at->second)});
  if (address) {
    addresses_[email] = *address;
  } else if (at != addresses_.end()) {
    addresses_.erase(at);
  }
}

MemoryStore::Address MemoryStore::Of(const Digest& email) const {
  const auto at = addresses_.find(email);
  return at == addresses_.end() ? Address{} : at->second;
}

const Row* MemoryStore::Find(const Key& key) const {
  const auto at = rows_.find(key);
  return at == rows_.end() ? nullptr : &at->second;
}

// The request with this id that `own` has replaced, or that has replaced `own`: the caller's own, or else another's.
const Row* MemoryStore::FindLinked(const Row& own, const Uuid& id, bool own_replaces) const {
  const Row* const mine = Find({own.record.key.caller, id});
  if (mine != nullptr && IsLinked(own, *mine, own_replaces)) return mine;
  if (const auto at = by_email_.find(own.email); at != by_email_.end()) {
    for (const Key& key : at->second) {
      const Row& row = rows_.at(key);
      if (key.request_id == id && IsLinked(own, row, own_replaces)) return &row;
    }
  }
  return mine;
}

const Row* MemoryStore::FindIntent(const std::string& caller, const std::string& intent) const {
  const auto at = by_intent_.find(intent);
  if (at == by_intent_.end()) return nullptr;
  const Row* best = nullptr;
  const auto rank = [](const Row& row) { return std::tie(row.record.created, row.record.key); };
  for (const Key& key : at->second) {
    const Row& row = rows_.at(key);
    if (key.caller == caller && (best == nullptr || rank(*best) < rank(row))) best = &row;
  }
  return best;
}

void MemoryStore::AddOpen(const Digest& email, std::vector<const Row*>& open) const {
  const auto at = by_email_.find(email);
  if (at == by_email_.end()) return;
  for (const Key& key : at->second) {
    const Row& row = rows_.at(key);
    if (row.record.state == State::kSending || row.record.state == State::kUnknown) open.push_back(&row);
  }
}

const Row* MemoryStore::FindPerson(const Lookup& lookup) const {
  const Row* best = nullptr;
  const auto rank = [&lookup](const Row& row) {
    return std::make_tuple(row.record.key.caller == lookup.key->caller, row.record.created, row.record.key);
  };
  for (const Digest* person : lookup.persons) {
    const auto at = by_person_.find(*person);
    if (at == by_person_.end()) continue;
    for (const Key& key : at->second) {
      const Row& row = rows_.at(key);
      const bool here = std::any_of(lookup.emails.begin(), lookup.emails.end(),
                                    [&row](const Digest* email) { return row.email == *email; });
      if (here && (best == nullptr || rank(*best) < rank(row))) best = &row;
    }
  }
  return best;
}

absl::StatusOr<View> MemoryStore::Load(const Lookup& lookup) {
  View view;
  const auto copy = [](const Row* row) { return row == nullptr ? std::nullopt : std::optional<Row>(*row); };
  const std::string& caller = lookup.key->caller;
  view.own = copy(lookup.intent == nullptr ? Find(*lookup.key) : FindIntent(caller, *lookup.intent));
  if (lookup.other) view.other = copy(Find({caller, *lookup.other}));
  if (lookup.superseded && view.own && view.own->record.supersedes) {
    view.other = copy(FindLinked(*view.own, *view.own->record.supersedes, true));
  }
  if (lookup.superseding && view.own && view.own->record.superseded_by) {
    view.superseding = copy(FindLinked(*view.own, *view.own->record.superseded_by, false));
  }
  if (lookup.counters && view.own) view.counters = Of(view.own->email).counters;
  for (const Digest* email : lookup.emails) view.counters += Of(*email).counters;
  if (!lookup.WantsOpen(view.own)) return view;
  std::vector<const Row*> open;
  for (const Digest* email : lookup.emails) AddOpen(*email, open);
  std::sort(open.begin(), open.end(), [](const Row* a, const Row* b) { return IsOlder(*a, *b); });
  for (const Row* row : open) view.open.push_back(*row);
  view.person = copy(FindPerson(lookup));
  return view;
}

absl::StatusOr<std::vector<Row>> MemoryStore::Sending(size_t limit) {
  std::vector<Row> rows;
  for (const auto& [key, row] : rows_) {
    if (rows.size() == limit) break;
    if (row.record.state == State::kSending) rows.push_back(row);
  }
  return rows;
}

absl::StatusOr<OldRows> MemoryStore::NextOldRows(absl::Time created_before, size_t limit) {
  std::map<std::pair<absl::Time, Key>, const Row*> ordered;
  for (const auto& [key, row] : rows_) {
    std::pair<absl::Time, Key> place(row.record.created, key);
    if (row.record.created < created_before && (!old_to_ || place > *old_to_)) ordered.emplace(std::move(place), &row);
  }
  OldRows old;
  old_to_.reset();
  for (const auto& [place, row] : ordered) {
    if (old.rows.size() == limit) break;
    old.rows.push_back(*row);
    old_to_ = place;
    for (const std::optional<Uuid>& id : {row->record.supersedes, row->record.superseded_by}) {
      const Row* linked = id ? Find({row->record.key.caller, *id}) : nullptr;
      if (linked != nullptr) old.linked.push_back(*linked);
    }
  }
  return old;
}

absl::Status MemoryStore::Apply(Changes changes) {
  if (!open_) return absl::InternalError("no transaction is open");
  for (const Changes::EmailMove& move : changes.emails) MoveEmail(move.from, move.to);
  for (const Changes::PersonMove& move : changes.persons) MovePerson(move.email, move.from, move.to);
  for (const Changes::Count& count : changes.counts) AddCount(count.email, count.delta);
  for (RowChange& change : changes.rows) {
    const Key key = change.row.record.key;
    if (change.logged) log_.push_back({static_cast<int64_t>(log_.size()) + 1, key});
    SetRow(key, std::move(change.row));
  }
  for (const Changes::Purge& purge : changes.purged) Forget(purge.row, purge.counted);
  if (changes.audit) {
    audit_.push_back(*std::move(changes.audit));
    audit_.back().seq = static_cast<int64_t>(audit_.size());
  }
  if (changes.conflict) Mark(*std::move(changes.conflict));
  return absl::OkStatus();
}

void MemoryStore::AddCount(const Digest& email, Counters delta) {
  Address now = Of(email);
  now.counters += delta;
  SetAddress(email, now);
}

void MemoryStore::MoveEmail(const Digest& from, const Digest& to) {
  if (const auto at = by_email_.find(from); at != by_email_.end()) {
    const std::vector<Key> keys = at->second;
    for (const Key& key : keys) {
      Row row = rows_.at(key);
      row.email = to;
      SetRow(key, std::move(row));
    }
  }
  if (const auto at = addresses_.find(from); at != addresses_.end()) {
    Address moved = at->second;
    SetAddress(from, std::nullopt);
    const Address there = Of(to);
    moved.counters += there.counters;
    moved.purged += there.purged;
    SetAddress(to, moved);
  }
}

void MemoryStore::MovePerson(const Digest& email, const Digest& from, const Digest& to) {
  const auto at = by_person_.find(from);
  if (at == by_person_.end()) return;
  const std::vector<Key> keys = at->second;
  for (const Key& key : keys) {
    Row row = rows_.at(key);
    if (row.email != email) continue;
    row.person = to;
    SetRow(key, std::move(row));
  }
}

void MemoryStore::Forget(const Row& row, Counters counted) {
  SetRow(row.record.key, std::nullopt);
  Address now = Of(row.email);
  now.purged += counted;
  SetAddress(row.email, now);
}

std::vector<Row> MemoryStore::AllRows() const {
  std::vector<Row> rows;
  for (const auto& [key, row] : rows_) rows.push_back(row);
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.record.key < b.record.key; });
  return rows;
}

std::map<Digest, Counters> MemoryStore::AllCounters() const {
  std::map<Digest, Counters> all;
  for (const auto& [email, address] : addresses_) all.emplace(email, address.counters);
  return all;
}

std::map<Digest, Counters> MemoryStore::AllPurged() const {
  std::map<Digest, Counters> all;
  for (const auto& [email, address] : addresses_) all.emplace(email, address.purged);
  return all;
}

}  // namespace userintent::ledger
