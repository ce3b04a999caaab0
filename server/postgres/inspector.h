// postgres::Inspector: what operators read of a ledger in PostgreSQL, and their own session on it.
//
// Needs no server of ours and no socket: the database's credentials are what lets somebody in, and any number of
// replicas may run meanwhile. Single-threaded; blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/inspector.h"
#include "server/ledger/operator_access.h"
#include "server/postgres/connection.h"
#include "server/postgres/store.h"

namespace userintent::postgres {

class Inspector final : public ledger::Inspector {
 public:
  // `connection`: of the moment.
  explicit Inspector(Store& store) : store_(store) {}

  absl::StatusOr<std::vector<ledger::Row>> WithId(const Uuid& request_id) override;
  absl::StatusOr<std::vector<ledger::Row>> Oldest(ledger::State state, absl::Time created_before, bool not_superseded,
                                                  size_t limit) override;
  absl::StatusOr<ledger::Counters> Count(const std::vector<ledger::Digest>& emails) override;
  absl::StatusOr<bool> AddOfAddresses(const std::vector<ledger::Digest>& emails, int64_t slice, int64_t& last,
                                      std::vector<ledger::Row>& rows) override;
  absl::StatusOr<std::vector<ledger::AuditEntry>> Audit(const std::optional<Uuid>& request_id, size_t limit) override;
  absl::StatusOr<int64_t> AuditEntries() override;
  absl::StatusOr<std::vector<ledger::Conflict>> Conflicts(const std::optional<Uuid>& request_id, size_t limit) override;
  absl::Status Add(int attempt_limit, int64_t slice, ledger::Totals& totals) override;
  absl::StatusOr<std::vector<ledger::LedgerKey>> Keys() override;
  absl::StatusOr<bool> HasRowsUnder(uint64_t key_id) override;
  absl::StatusOr<ledger::WebhookEvidence> EvidenceOf(const ledger::Record& record, absl::Time now) override;
  int64_t callers() const override { return callers_; }
  int schema_version() const override;

  // Once, before the rest.
  absl::Status CountCallers();

 private:
  // The last ones of a table, or of one request.
  template <typename T>
  absl::StatusOr<std::vector<T>> Newest(const char* columns, const char* table, const std::optional<Uuid>& request_id,
                                        size_t limit, T (*read)(const Rows& rows, int at));
  absl::StatusOr<Rows> Ask(std::string_view sql, std::initializer_list<Value> values);
  absl::StatusOr<int64_t> Number(std::string_view sql, std::initializer_list<Value> values);

  Store& store_;
  int64_t callers_ = 0;
};

// One start of one process, as the database knows it.
struct ReplicaRow {
  int64_t epoch = 0;
  std::string name;
  absl::Time started, seen;                 // by the database's clock
  absl::Time ended = absl::InfinitePast();  // InfinitePast: it beats
  bool swept = false;
  int64_t beat = 0;
  int64_t sending = 0;  // rows that it has under way; of one that has ended: that wait to become unknown
};

// The ledger as userintent-ledger works on it.
class OperatorsLedger final : public ledger::OperatorAccess {
 public:
  // `any_schema`: also where there is no ledger yet, or one of another version; then only Migrate is of use.
  // `patience`: with one answer of the database.
  static absl::StatusOr<std::unique_ptr<OperatorsLedger>> Open(const std::string& url, bool any_schema = false,
                                                               absl::Duration patience = absl::Minutes(10));

  absl::Status Transact(Work work) override;
  // Refused, with what to use instead.
  absl::StatusOr<ledger::BackupReport> BackUp(const ledger::BackupOptions& options) override;

  // The version before, and after.
  absl::StatusOr<std::pair<int, int>> Migrate();
  // Those that are not swept, and the last `more` of the others; the newest first.
  absl::StatusOr<std::vector<ReplicaRow>> Replicas(int64_t more);

  Store& store() { return *store_; }

 private:
  explicit OperatorsLedger(std::unique_ptr<Store> store) : store_(std::move(store)), inspector_(*store_) {}

  const std::unique_ptr<Store> store_;
  Inspector inspector_;
};

}  // namespace userintent::postgres
