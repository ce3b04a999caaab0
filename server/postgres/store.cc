#include "server/postgres/store.h"

#include <utility>

#include "server/postgres/change_log.h"
#include "server/postgres/searches.h"

namespace userintent::postgres {
namespace {

// The row of the replica is locked, so that nobody ends the epoch between the look and the session: whoever ends it
// closes every session that was opened before.
constexpr char kOpenSession[] =
    "INSERT INTO session (epoch) SELECT r.epoch FROM (SELECT epoch FROM replica WHERE epoch = $1 AND ended IS NULL "
    "FOR NO KEY UPDATE) r RETURNING id";

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(StoreOptions options) {
  auto store = std::unique_ptr<Store>(new Store(std::move(options)));
  if (absl::Status s = store->Connect(); !s.ok()) return s;
  return store;
}

Store::~Store() = default;

absl::Status Store::Connect() {
  const Waiting waiting(waiting_since_);
  absl::StatusOr<std::unique_ptr<Connection>> opened = Connection::Open(options_.connection);
  if (!opened.ok()) return opened.status();
  // Where the check fails, the one that is lost stays: what is read outside a transaction fails with it, and the next
  // transaction connects anew.
  if (absl::Status s = CheckNothingLost(**opened); !s.ok()) return s;
  connection_ = *std::move(opened);
  session_ = 0;
  session_epoch_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<Connection*> Store::Connected() {
  if (connection_ == nullptr || connection_->IsBroken()) {
    if (absl::Status s = Connect(); !s.ok()) return s;
  }
  return connection_.get();
}

absl::Status Store::EnsureSession() {
  owner_ = options_.owner();
  const int64_t epoch = owner_.epoch;
  if (epoch == session_epoch_ && session_ != 0) return absl::OkStatus();
  session_ = 0;
  session_epoch_ = epoch;
  if (epoch == 0) return absl::OkStatus();
  const absl::StatusOr<Rows> rows = connection_->Query(kOpenSession, {epoch});
  ++round_trips_;
  if (!rows.ok()) return rows.status();
  // None: this epoch was fenced. Then nothing begins, and what runs may end.
  session_ = rows->size() == 0 ? 0 : rows->Number(0, 0);
  return absl::OkStatus();
}

absl::Status Store::Start() {
  // A session may have to wait for the beat of this replica, which waits for its standby.
  const Waiting waiting(waiting_since_);
  if (doubt_.session != 0) {
    if (absl::Status s = ResolveDoubt(); !s.ok()) return s;
  }
  if (const absl::StatusOr<Connection*> connection = Connected(); !connection.ok()) return connection.status();
  Clear();
  open_ = true;
  return EnsureSession();
}

void Store::Rollback() {
  webhooks_.Rollback();
  Clear();
}

void Store::Clear() {
  open_ = false;
  rows_.clear();
  addresses_.clear();
  by_email_.clear();
  opened_.clear();
  persons_.clear();
  intents_.clear();
  moves_.clear();
  person_moves_.clear();
  audit_.clear();
  conflicts_.clear();
  log_.clear();
  touch_ = false;
}

absl::StatusOr<std::vector<ledger::Row>> Store::Sending(size_t limit) {
  const std::vector<int64_t> gone = options_.gone();
  if (gone.empty()) return std::vector<ledger::Row>();
  static const auto* const kSql =
      new std::string(SelectRows("WHERE r.state = 1 AND r.owner = ANY ($1) ORDER BY r.id LIMIT $2"));
  ++round_trips_;
  const absl::StatusOr<Rows> rows = connection_->Query(*kSql, {gone, limit});
  if (!rows.ok()) return rows.status();
  if (absl::Status s = Take(*rows); !s.ok()) return s;
  return ReadRows(*rows);
}

absl::StatusOr<ledger::OldRows> Store::NextOldRows(absl::Time created_before, size_t limit) {
  static const auto* const kSql = new std::string(SelectRows("WHERE r.id > $1 ORDER BY r.id LIMIT $2"));
  ++round_trips_;
  const absl::StatusOr<Rows> rows = connection_->Query(*kSql, {std::exchange(old_to_, 0), limit});
  if (!rows.ok()) return rows.status();
  if (absl::Status s = Take(*rows); !s.ok()) return s;
  absl::StatusOr<std::vector<ledger::Row>> found = ReadRows(*rows);
  if (!found.ok()) return found.status();
  ledger::OldRows old;
  Wants wants;
  std::vector<ledger::Key> linked;
  for (ledger::Row& row : *found) {
    // What arrived after a young row is young, or nearly so: replicas take numbers before they commit.
    if (row.record.created >= created_before) break;
    old_to_ = row.handle;
    for (const std::optional<Uuid>& id : {row.record.supersedes, row.record.superseded_by}) {
      if (!id) continue;
      linked.push_back({row.record.key.caller, *id});
      if (rows_.contains(linked.back())) continue;
      wants.callers.push_back(linked.back().caller);
      wants.ids.push_back(*id);
    }
    old.rows.push_back(std::move(row));
  }
  if (absl::Status s = Fetch(wants); !s.ok()) return s;
  for (const ledger::Key& key : linked) {
    if (const ledger::Row* const row = Find(key)) old.linked.push_back(*row);
  }
  return old;
}

absl::StatusOr<ledger::TraceAnswer> Store::Trace(const ledger::TraceRequest& request) {
  return postgres::Trace(*connection_, request);
}

absl::StatusOr<ledger::SucceededAnswer> Store::Succeeded(const ledger::SucceededRequest& request) {
  return postgres::Succeeded(*connection_, request);
}

absl::StatusOr<ledger::UnresolvedAnswer> Store::Unresolved() { return postgres::Unresolved(*connection_); }

absl::StatusOr<ledger::LogSlice> Store::ReadLog(const ledger::LogLookup& lookup) {
  return postgres::ReadLog(*connection_, lookup);
}

absl::Status Store::Touch() {
  touch_ = true;
  return absl::OkStatus();
}

}  // namespace userintent::postgres
