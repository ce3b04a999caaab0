#include "server/ledger/sqlite_store.h"

#include <sqlite3.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/ledger/sqlite_rows.h"

namespace userintent::ledger {
namespace {

constexpr size_t kKept = 16384;  // addresses, and rows; more than run at once

}  // namespace

// A condition repeats its partial index's WHERE word for word, or SQLite cannot use it.
std::vector<std::string> SqliteStore::Sql() {
  return {
      "BEGIN IMMEDIATE",
      "COMMIT",
      "ROLLBACK",
      SelectRows("WHERE r.email = ?1 AND r.state IN (1, 4)"),
      SelectRows("WHERE r.email = ?1 AND r.person = ?2 AND r.state = 2 "
                 "ORDER BY r.caller = ?3 DESC, r.created_at DESC, r.caller DESC, r.request_id DESC LIMIT 1"),
      SelectRows("WHERE r.state IN (1, 4) AND r.state = 1 LIMIT ?1"),
      SelectRows("WHERE r.id > ?1 ORDER BY r.id LIMIT ?2"),
      InsertRowSql(),
      UpdateRowSql(RowChange::Part::kProgress),
      UpdateRowSql(RowChange::Part::kWhole),
      UpdateRowSql(RowChange::Part::kLatest),
      "UPDATE email SET confirmed = confirmed + ?2, possible = possible + ?3 WHERE id = ?1",
      "SELECT confirmed, possible FROM email WHERE id = ?1",
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
      "DELETE FROM request WHERE id = ?1",
      "UPDATE email SET purged_confirmed = purged_confirmed + ?2, purged_possible = purged_possible + ?3 WHERE id = ?1",
      "UPDATE probe SET written = written + 1, revision = ?1 WHERE id = 1",
      SelectRows("WHERE r.id = ?1"),
      SelectRows("WHERE r.attempt_id = ?1 AND r.state >= 3 ORDER BY r.id DESC LIMIT 1"),
      SelectRows("WHERE r.state IN (1, 4) AND r.state = 1 AND r.attempt_id = ?1 LIMIT 1"),
      "SELECT id, created_at, state = 2 AND attempt_id = ?3 FROM request WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
      "SELECT id, created_at FROM request WHERE id >= ?1 ORDER BY id LIMIT 1",
      "INSERT INTO change (revision, request, caller) VALUES (?1, ?2, ?3)",
      "SELECT EXISTS (SELECT 1 FROM change WHERE revision = ?1)",
      "SELECT revision, request, caller FROM change WHERE revision > ?1 ORDER BY revision LIMIT ?2",
      "DELETE FROM change WHERE revision < ?1",
      "INSERT INTO conflict (at, caller, request_id, attempt_id, recorded_state, recorded_intent, claimed_state, "
      "claimed_intent, action, evidence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
  };
}

// ---- transactions ----

template <class What>
absl::Status SqliteStore::EachIndex(What what) {
  if (absl::Status s = what(request_keys_); !s.ok()) return s;
  if (absl::Status s = what(email_keys_); !s.ok()) return s;
  return what(intent_keys_);
}

// The index that says it has stopped this store; the ledger stays as it is.
absl::Status SqliteStore::Sound() {
  return EachIndex([this](const auto& index) {
    if (index.broken().empty()) return absl::OkStatus();
    options_.on_broken(index.broken());
    return connection_.Damaged(index.broken());
  });
}

absl::Status SqliteStore::Start() {
  if (absl::Status s = Sound(); !s.ok()) return s;
  if (read_tails_) {
    if (absl::Status s = EachIndex([](auto& index) { return index.ReadTail(); }); !s.ok()) return s;
    read_tails_ = false;
  }
  changes_before_ = changes();
  return Use(kStart).Run();
}

absl::Status SqliteStore::Commit() {
  // What was only read costs no sync.
  if (changes() != changes_before_) {
    if (absl::Status s = EachIndex([](auto& index) { return index.MergeSome(); }); !s.ok()) return s;
  }
  const bool merges = request_keys_.merges() || email_keys_.merges() || intent_keys_.merges();
  if (merges) Reach("before-merge-commit");
  absl::Status status = Use(kCommit).Run();
  if (!status.ok()) {
    read_tails_ = true;
    return status;
  }
  if (merges) Reach("after-merge-commit");
  EachIndex([](auto& index) {
    index.Committed();
    return absl::OkStatus();
  }).IgnoreError();
  fresh_callers_.clear();
  rows_ += std::exchange(fresh_rows_, 0);
  revision_ = std::exchange(fresh_revision_, std::nullopt).value_or(revision_);
  logged_ = std::exchange(fresh_logged_, std::nullopt).value_or(logged_);
  std::move(fresh_log_.begin(), fresh_log_.end(), std::back_inserter(committed_log_));
  fresh_log_.clear();
  first_logged_ = std::exchange(fresh_first_logged_, std::nullopt).value_or(first_logged_);
  return status;
}

void SqliteStore::Rollback() {
  // Some errors make SQLite roll back by itself.
  if (sqlite3_get_autocommit(connection_.db()) == 0) Use(kRollback).Run().IgnoreError();
  for (const std::string& name : fresh_callers_) {
    const auto at = caller_ids_.find(name);
    caller_names_.erase(at->second);
    caller_ids_.erase(at);
  }
  fresh_callers_.clear();
  fresh_rows_ = 0;
  fresh_revision_.reset();
  fresh_log_.clear();
  fresh_logged_.reset();
  fresh_first_logged_.reset();
  webhooks_.Rollback();
  EachIndex([](auto& index) {
    index.RolledBack();
    return absl::OkStatus();
  }).IgnoreError();
  ForgetCopies();
}

void SqliteStore::ForgetCopies() {
  addresses_.clear();
  running_.clear();
}

// ---- what is changed ----

absl::Status SqliteStore::MakeAddress(const Digest& email, Counters counters) {
  SqliteUse use = Use(kNewEmail);
  use.Bind(1, email).Bind(2, int64_t{counters.confirmed}).Bind(3, int64_t{counters.possible});
  if (absl::Status s = use.Run(); !s.ok()) return s;
  const int64_t id = sqlite3_last_insert_rowid(connection_.db());
  addresses_[email] = {id, counters};
  return email_keys_.Insert({email}, id);
}

absl::Status SqliteStore::Apply(Changes changes) {
  for (const Changes::EmailMove& move : changes.emails) {
    if (absl::Status s = MoveEmail(move.from, move.to); !s.ok()) return s;
  }
  for (const Changes::PersonMove& move : changes.persons) {
    if (absl::Status s = MovePerson(move); !s.ok()) return s;
  }
  for (const Changes::Count& count : changes.counts) {
    if (absl::Status s = AddCount(count); !s.ok()) return s;
  }
  for (RowChange& change : changes.rows) {
    if (absl::Status s = Put(change); !s.ok()) return s;
  }
  for (const Changes::Purge& purge : changes.purged) {
    if (absl::Status s = Forget(purge); !s.ok()) return s;
  }
  if (changes.audit) {
    if (absl::Status s = Append(*changes.audit); !s.ok()) return s;
  }
  return changes.conflict ? Mark(*changes.conflict) : absl::OkStatus();
}

absl::Status SqliteStore::Put(RowChange& change) {
  Row& row = change.row;
  if (row.handle == 0) return Insert(row);
  const Statement statement = change.part == RowChange::Part::kProgress ? kUpdateProgress
                              : change.part == RowChange::Part::kWhole  ? kUpdateWhole
                                                                        : kUpdateLatest;
  SqliteUse use = Use(statement);
  int at = BindRow(use, row, change.part);
  if (change.part == RowChange::Part::kWhole) {
    const absl::StatusOr<Address> address = AddressOf(row.email);
    if (!address.ok()) return address.status();
    use.Bind(at++, address->id);
  }
  if (absl::Status s = use.Bind(at, row.handle).Run(); !s.ok()) return s;
  if (sqlite3_changes(connection_.db()) != 1) return connection_.Damaged("a request is gone");
  if (row.record.state == State::kSucceeded && change.part != RowChange::Part::kLatest) {
    const IntentKey key = IntentKeyOf(row.record.answer.user_intent_id);
    if (absl::Status s = intent_keys_.Insert(key, row.handle); !s.ok()) return s;
  }
  if (change.logged) {
    if (absl::Status s = Log(row); !s.ok()) return s;
  }
  if (row.record.state != State::kSending) {
    running_.erase(row.record.key);
    return absl::OkStatus();
  }
  Keep(row);
  return absl::OkStatus();
}

absl::Status SqliteStore::Insert(Row& row) {
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(row.record.key.caller, true);
  if (!caller.ok()) return caller.status();
  absl::StatusOr<Address> address = AddressOf(row.email);
  if (address.ok() && address->id == 0) {
    if (absl::Status s = MakeAddress(row.email, {}); !s.ok()) return s;
    address = AddressOf(row.email);
  }
  if (!address.ok()) return address.status();
  {
    SqliteUse use = Use(kInsert);
    const int at = BindRow(use, row, RowChange::Part::kWhole);
    if (absl::Status s = use.Bind(at, **caller).Bind(at + 1, address->id).Run(); !s.ok()) return s;
  }
  row.handle = sqlite3_last_insert_rowid(connection_.db());
  if (absl::Status s = request_keys_.Insert({**caller, row.record.key.request_id}, row.handle); !s.ok()) return s;
  ++fresh_rows_;
  if (row.record.state == State::kSending) Keep(row);
  return absl::OkStatus();
}

void SqliteStore::Keep(Row& row) {
  if (running_.size() >= kKept) running_.clear();
  RoundTimes(row.record);
  Key key = row.record.key;
  running_.insert_or_assign(std::move(key), std::move(row));
}

absl::Status SqliteStore::AddCount(const Changes::Count& count) {
  const absl::StatusOr<Address> address = AddressOf(count.email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return MakeAddress(count.email, count.delta);
  SqliteUse use = Use(kAddCount);
  use.Bind(1, address->id).Bind(2, int64_t{count.delta.confirmed}).Bind(3, int64_t{count.delta.possible});
  if (absl::Status s = use.Run(); !s.ok()) return s;
  if (sqlite3_changes(connection_.db()) != 1) return connection_.Damaged("an address has no counter");
  addresses_[count.email].counters += count.delta;
  return absl::OkStatus();
}

absl::Status SqliteStore::MoveEmail(const Digest& from, const Digest& to) {
  const absl::StatusOr<Address> source = AddressOf(from);
  if (!source.ok()) return source.status();
  if (source->id == 0) return absl::OkStatus();
  const absl::StatusOr<Address> target = AddressOf(to);
  if (!target.ok()) return target.status();
  ForgetCopies();
  if (absl::Status s = email_keys_.Remove({from}, source->id); !s.ok()) return s;
  if (target->id == 0) {
    if (absl::Status s = Use(kMoveEmail).Bind(1, source->id).Bind(2, to).Run(); !s.ok()) return s;
    return email_keys_.Insert({to}, source->id);
  }
  // Known under both, which takes a call that did not say its previous key. Reads every row; does not happen twice.
  for (const Statement statement : {kMergeRequests, kMergeCounts}) {
    if (absl::Status s = Use(statement).Bind(1, source->id).Bind(2, target->id).Run(); !s.ok()) return s;
  }
  return Use(kDropEmail).Bind(1, source->id).Run();
}

absl::Status SqliteStore::MovePerson(const Changes::PersonMove& move) {
  const absl::StatusOr<Address> address = AddressOf(move.email);
  if (!address.ok()) return address.status();
  if (address->id == 0) return absl::OkStatus();
  return Use(kMovePerson).Bind(1, address->id).Bind(2, move.from).Bind(3, move.to).Run();
}

absl::Status SqliteStore::Append(const AuditEntry& entry) {
  SqliteUse use = Use(kAppend);
  use.Bind(1, Micros(entry.at)).Bind(2, entry.actor).Bind(3, entry.action);
  use.Bind(4, entry.key.caller).Bind(5, entry.key.request_id);
  use.Bind(6, static_cast<int64_t>(entry.from)).Bind(7, static_cast<int64_t>(entry.to)).Bind(8, entry.evidence);
  return use.Run();
}

absl::Status SqliteStore::Forget(const Changes::Purge& purge) {
  const absl::StatusOr<Address> address = AddressOf(purge.row.email);
  if (!address.ok()) return address.status();
  if (absl::Status s = Use(kForget).Bind(1, purge.row.handle).Run(); !s.ok()) return s;
  if (sqlite3_changes(connection_.db()) != 1) return absl::InternalError("no such row");
  const Record& record = purge.row.record;
  const absl::StatusOr<std::optional<int64_t>> caller = CallerId(record.key.caller, false);
  if (!caller.ok()) return caller.status();
  absl::Status gone = request_keys_.Remove({caller->value_or(0), record.key.request_id}, purge.row.handle);
  if (gone.ok() && record.state == State::kSucceeded) {
    gone = intent_keys_.Remove(IntentKeyOf(record.answer.user_intent_id), purge.row.handle);
  }
  if (!gone.ok()) return gone;
  --fresh_rows_;
  SqliteUse use = Use(kAddPurged);
  use.Bind(1, address->id).Bind(2, int64_t{purge.counted.confirmed}).Bind(3, int64_t{purge.counted.possible});
  return use.Run();
}

absl::Status SqliteStore::Touch() { return Advance(0); }

absl::Status SqliteStore::Advance(int64_t beyond) {
  const int64_t next = std::max({Micros(options_.now()), revision_ + 1, beyond + 1});
  if (absl::Status s = Use(kTouch).Bind(1, next).Run(); !s.ok()) return s;
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
  const int code = sqlite3_wal_checkpoint_v2(connection_.db(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
  if (code != SQLITE_OK) return connection_.Error("copy its log");
  wal_frames_ = 0;
  if (frames == copied) in_file_ = revision_;
  Reach("after-checkpoint");
  return absl::OkStatus();
}

}  // namespace userintent::ledger
