#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "server/ledger/memory_ledger.h"
#include "server/ledger/memory_store.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/sqlite_store.h"
#include "server/postgres/store.h"
#include "tests/unit/ledger/support.h"
#include "tests/unit/postgres/postgres_server.h"

namespace userintent::ledger {
namespace {

// Another store, which a derived class makes and whose surroundings it keeps.
class ForwardingStore : public Store {
 public:
  absl::Status Start() override { return store_->Start(); }
  absl::Status Commit() override { return store_->Commit(); }
  void Rollback() override { store_->Rollback(); }
  bool prepares() const override { return store_->prepares(); }
  absl::Status Prepare(absl::Span<const Lookup> lookups) override { return store_->Prepare(lookups); }
  absl::StatusOr<View> Load(const Lookup& lookup) override { return store_->Load(lookup); }
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override { return store_->Sending(limit); }
  absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) override {
    return store_->NextOldRows(created_before, limit);
  }
  absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) override { return store_->Trace(request); }
  absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) override {
    return store_->Succeeded(request);
  }
  absl::StatusOr<UnresolvedAnswer> Unresolved() override { return store_->Unresolved(); }
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override { return store_->ReadLog(lookup); }
  int64_t logged() const override { return store_->logged(); }
  std::vector<Change> TakeLogged() override { return store_->TakeLogged(); }
  absl::Status Apply(Changes changes) override { return store_->Apply(std::move(changes)); }
  absl::Status Touch() override { return store_->Touch(); }
  WebhookStore& webhooks() override { return store_->webhooks(); }

 protected:
  std::unique_ptr<Store> store_;
};

// The SQLite ones keep their directory as long as they live.
class TemporarySqliteStore : public ForwardingStore {
 public:
  TemporarySqliteStore() {
    SqliteStoreOptions options;
    options.path = directory_.File("ledger.db");
    options.key_id = kKey;
    options.merge = EarlyMerges();
    store_ = std::move(SqliteStore::Open(options)).value();
  }
  ~TemporarySqliteStore() override { store_.reset(); }  // before its directory

 private:
  TemporaryDirectory directory_;
};

struct TemporarySqliteLedger {
  TemporarySqliteLedger() {
    SqliteLedgerOptions options;
    options.store.path = directory.File("ledger.db");
    options.store.key_id = kKey;
    options.store.merge = EarlyMerges();
    options.unknown_reason = 19;
    options.webhook_limit = kWebhookLimit;
    options.store.now = [] { return At(0); };  // so that the webhooks of a test are young
    ledger = std::move(SqliteLedger::Open(std::move(options))).value();
  }
  TemporaryDirectory directory;
  std::unique_ptr<SqliteLedger> ledger;
};

// A database for as long as it lives. They are used again, emptied, since making one takes longer than most tests.
class BorrowedDatabase {
 public:
  BorrowedDatabase() {
    std::vector<std::string>& free = Free();
    if (free.empty()) {
      url_ = postgres::PostgresServer::Get().NewDatabase();
      // The first one, so its epoch is 1.
      const absl::Status s =
          postgres::PostgresServer::Connect(url_)->Execute("INSERT INTO replica (name) VALUES ('tests')");
      if (!s.ok()) std::abort();
      return;
    }
    url_ = std::move(free.back());
    free.pop_back();
    const absl::Status s = postgres::PostgresServer::Connect(url_)->Execute(
        "SET session_replication_role TO replica; SET synchronous_commit TO off; BEGIN; DELETE FROM request; "
        "DELETE FROM email; DELETE FROM caller; DELETE FROM change; DELETE FROM audit; DELETE FROM conflict; "
        "DELETE FROM webhook; DELETE FROM receiver_period; DELETE FROM session; "
        "DELETE FROM setting WHERE name = 'log_pruned'; COMMIT");
    if (!s.ok()) std::abort();
  }
  ~BorrowedDatabase() { Free().push_back(url_); }
  BorrowedDatabase(const BorrowedDatabase&) = delete;
  BorrowedDatabase& operator=(const BorrowedDatabase&) = delete;
  const std::string& url() const { return url_; }

 private:
  static std::vector<std::string>& Free() {
    static auto* const free = new std::vector<std::string>;
    return *free;
  }
  std::string url_;
};

postgres::StoreOptions OptionsOf(const BorrowedDatabase& database) {
  postgres::StoreOptions options;
  options.connection = {database.url(), "tests"};
  options.owner = [] { return Owner{1, nullptr}; };
  // Whatever runs is anybody's to recover, as it is in a ledger of one process that starts.
  options.gone = [] { return std::vector<int64_t>{0, 1}; };
  options.now = [] { return At(0); };
  return options;
}

class TemporaryPostgresStore : public ForwardingStore {
 public:
  TemporaryPostgresStore() { store_ = std::move(postgres::Store::Open(OptionsOf(database_))).value(); }
  ~TemporaryPostgresStore() override { store_.reset(); }  // before its database
  // Revisions grow by other steps than 1. Tests that count them are told how many there are up to each.
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override {
    const std::vector<int64_t> all = Revisions();
    const auto count = [&all](int64_t revision) {
      return std::upper_bound(all.begin(), all.end(), revision) - all.begin();
    };
    LogLookup real = lookup;
    const auto after = static_cast<size_t>(lookup.after);
    real.after = after == 0 ? 0 : after > all.size() ? INT64_MAX : all[after - 1];
    absl::StatusOr<LogSlice> slice = store_->ReadLog(real);
    if (!slice.ok()) return slice;
    slice->upto = slice->upto == real.after ? lookup.after : count(slice->upto);
    for (LogSlice::Entry& entry : slice->entries) entry.revision = count(entry.revision);
    return slice;
  }
  int64_t logged() const override { return static_cast<int64_t>(Revisions().size()); }

 private:
  std::vector<int64_t> Revisions() const {
    const auto rows = postgres::PostgresServer::Connect(database_.url())
                          ->Query("SELECT revision FROM change ORDER BY 1", std::initializer_list<postgres::Value>{});
    std::vector<int64_t> all;
    for (int at = 0; at < rows.value().size(); ++at) all.push_back(rows->Number(at, 0));
    return all;
  }

  BorrowedDatabase database_;
};

// The tests' calls end what they began, and name no owner.
class OwnersLedger final : public BatchLedger {
 public:
  using BatchLedger::BatchLedger;
  void Finish(FinishRequest request, Executor& executor, FinishDone done) override {
    if (request.owner == 0) request.owner = 1;
    BatchLedger::Finish(std::move(request), executor, std::move(done));
  }
};

struct TemporaryPostgresLedger {
  TemporaryPostgresLedger() {
    BatchOptions options;
    options.unknown_reason = 19;
    options.webhook_limit = kWebhookLimit;
    ledger = std::make_unique<OwnersLedger>(postgres::Store::Open(OptionsOf(database)).value(), std::move(options));
  }
  BorrowedDatabase database;
  std::unique_ptr<BatchLedger> ledger;
};

bool HasPostgres() {
  const std::string& missing = postgres::PostgresServer::Missing();
  if (missing.empty()) return true;
  const char* const known = std::getenv("USERINTENT_NO_POSTGRES");
  if (known != nullptr && std::string(known) == "1") {
    std::fprintf(stderr, "USERINTENT_NO_POSTGRES=1: without the ledger in PostgreSQL: %s\n", missing.c_str());
    return false;
  }
  std::fprintf(stderr, "%s\n", missing.c_str());
  std::exit(1);
}

}  // namespace

std::vector<StoreKind> StoreKinds() {
  std::vector<StoreKind> kinds = {{"memory", [] { return std::make_unique<MemoryStore>(); }},
                                  {"sqlite", [] { return std::make_unique<TemporarySqliteStore>(); }}};
  if (HasPostgres()) kinds.push_back({"postgres", [] { return std::make_unique<TemporaryPostgresStore>(); }});
  return kinds;
}

std::vector<LedgerKind> LedgerKinds() {
  std::vector<LedgerKind> kinds = {
      {"memory", [] { return std::make_shared<MemoryLedger>(WaiterLimits(), kWebhookLimit); }},
      {"sqlite", [] {
         const auto made = std::make_shared<TemporarySqliteLedger>();
         return std::shared_ptr<BatchLedger>(made, made->ledger.get());
       }}};
  if (HasPostgres()) {
    kinds.push_back({"postgres", [] {
                       const auto made = std::make_shared<TemporaryPostgresLedger>();
                       return std::shared_ptr<BatchLedger>(made, made->ledger.get());
                     }});
  }
  return kinds;
}

}  // namespace userintent::ledger
