// A MemoryStore that fails when told: from its call number `fail_at` on, `run` calls. And one that others are quicker
// than: the next `outrun` commits are aborted.
#pragma once

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ledger/memory_store.h"

namespace userintent::ledger {

class FailingStore : public Store {
 public:
  absl::Status Start() override {
    const absl::Status status = Do([&] { return store.Start(); });
    if (!status.ok() && fails_begun) store.Start().IgnoreError();
    return status;
  }
  absl::Status Commit() override {
    if (outrun > 0) {
      --outrun;
      return absl::AbortedError("another process was quicker");
    }
    return Do([&] { return store.Commit(); });
  }
  void Rollback() override { store.Rollback(); }
  absl::StatusOr<View> Load(const Lookup& lookup) override {
    return Do([&] { return store.Load(lookup); });
  }
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override {
    return Do([&] { return store.Sending(limit); });
  }
  absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) override {
    return Do([&] { return store.NextOldRows(created_before, limit); });
  }
  absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) override {
    return Do([&] { return store.Trace(request); });
  }
  absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) override {
    return Do([&] { return store.Succeeded(request); });
  }
  absl::StatusOr<UnresolvedAnswer> Unresolved() override {
    return Do([&] { return store.Unresolved(); });
  }
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override {
    return Do([&] { return store.ReadLog(lookup); });
  }
  int64_t logged() const override { return store.logged(); }
  std::vector<Change> TakeLogged() override { return store.TakeLogged(); }
  absl::Status Apply(Changes changes) override {
    return Do([&] { return store.Apply(std::move(changes)); });
  }
  absl::Status Touch() override {
    return Do([&] { return store.Touch(); });
  }
  WebhookStore& webhooks() override { return store.webhooks(); }

  MemoryStore store;
  int calls = 0;
  int fail_at = -1;
  int run = 1;
  int outrun = 0;
  bool fails_begun = false;  // a Start that fails has begun the transaction all the same

 private:
  template <typename F>
  auto Do(F f) -> decltype(f()) {
    const int call = calls++;
    if (fail_at >= 0 && call >= fail_at && call < fail_at + run) return absl::UnavailableError("the store failed");
    return f();
  }
};

}  // namespace userintent::ledger
