#include "server/ledger/memory_ledger.h"
#include "server/ledger/memory_store.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/sqlite_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

// The SQLite ones keep their directory as long as they live.
class TemporarySqliteStore : public Store {
 public:
  TemporarySqliteStore() {
    SqliteStoreOptions options;
    options.path = directory_.File("ledger.db");
    options.key_id = kKey;
    store_ = std::move(SqliteStore::Open(options)).value();
  }
  absl::Status Start() override { return store_->Start(); }
  absl::Status Commit() override { return store_->Commit(); }
  void Rollback() override { store_->Rollback(); }
  absl::StatusOr<View> Load(const Lookup& lookup) override { return store_->Load(lookup); }
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override { return store_->Sending(limit); }
  absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) override {
    return store_->NextOldRows(created_before, limit);
  }
  absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) override { return store_->Trace(request); }
  absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) override {
    return store_->Succeeded(request);
  }
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override { return store_->ReadLog(lookup); }
  int64_t logged() const override { return store_->logged(); }
  std::vector<Change> TakeLogged() override { return store_->TakeLogged(); }
  absl::Status Apply(Changes changes) override { return store_->Apply(std::move(changes)); }
  absl::Status Touch() override { return store_->Touch(); }
  WebhookStore& webhooks() override { return store_->webhooks(); }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<SqliteStore> store_;
};

struct TemporarySqliteLedger {
  TemporarySqliteLedger() {
    SqliteLedgerOptions options;
    options.store.path = directory.File("ledger.db");
    options.store.key_id = kKey;
    options.unknown_reason = 19;
    options.webhook_limit = kWebhookLimit;
    options.store.now = [] { return At(0); };  // so that the webhooks of a test are young
    ledger = std::move(SqliteLedger::Open(std::move(options))).value();
  }
  TemporaryDirectory directory;
  std::unique_ptr<SqliteLedger> ledger;
};

}  // namespace

std::vector<StoreKind> StoreKinds() {
  return {{"memory", [] { return std::make_unique<MemoryStore>(); }},
          {"sqlite", [] { return std::make_unique<TemporarySqliteStore>(); }}};
}

std::vector<LedgerKind> LedgerKinds() {
  return {{"memory", [] { return std::make_shared<MemoryLedger>(WaiterLimits(), kWebhookLimit); }},
          {"sqlite", [] {
             const auto made = std::make_shared<TemporarySqliteLedger>();
             return std::shared_ptr<BatchLedger>(made, made->ledger.get());
           }}};
}

}  // namespace userintent::ledger
