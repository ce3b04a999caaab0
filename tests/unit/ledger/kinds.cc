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
  absl::Status Apply(Changes changes) override { return store_->Apply(std::move(changes)); }
  absl::Status Touch() override { return store_->Touch(); }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<SqliteStore> store_;
};

class TemporarySqliteLedger : public Ledger {
 public:
  TemporarySqliteLedger() {
    SqliteLedgerOptions options;
    options.store.path = directory_.File("ledger.db");
    options.store.key_id = kKey;
    options.unknown_reason = 19;
    ledger_ = std::move(SqliteLedger::Open(std::move(options))).value();
  }
  Token Begin(BeginRequest request, Executor& executor, BeginDone done) override {
    return ledger_->Begin(std::move(request), executor, std::move(done));
  }
  void Forget(Token token) override { ledger_->Forget(token); }
  void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                   AttemptDone done) override {
    ledger_->NextAttempt(std::move(key), attempt_id, sent_so_far, now, executor, std::move(done));
  }
  void Finish(FinishRequest request, Executor& executor, FinishDone done) override {
    ledger_->Finish(std::move(request), executor, std::move(done));
  }
  void Get(Key key, Executor& executor, GetDone done) override {
    ledger_->Get(std::move(key), executor, std::move(done));
  }
  void FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) override {
    ledger_->FindIntent(std::move(caller), std::move(user_intent_id), executor, std::move(done));
  }
  void RecordReading(Key key, Reading reading, Executor& executor, ReadingDone done) override {
    ledger_->RecordReading(std::move(key), std::move(reading), executor, std::move(done));
  }
  bool Writable() const override { return ledger_->Writable(); }

 private:
  TemporaryDirectory directory_;
  std::unique_ptr<SqliteLedger> ledger_;
};

}  // namespace

std::vector<StoreKind> StoreKinds() {
  return {{"memory", [] { return std::make_unique<MemoryStore>(); }},
          {"sqlite", [] { return std::make_unique<TemporarySqliteStore>(); }}};
}

std::vector<LedgerKind> LedgerKinds() {
  return {{"memory", [] { return std::make_unique<MemoryLedger>(); }},
          {"sqlite", [] { return std::make_unique<TemporarySqliteLedger>(); }}};
}

}  // namespace userintent::ledger
