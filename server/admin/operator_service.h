// admin::OperatorService: what an operator may ask of a ledger and do to it, in the words of userintent.admin.v1.
//
// Stands between the ledger, which it does not own, and the operator who asks. Each method blocks; they may be called
// from any thread that may call the ledger given. The text of a status is one line for the operator, without personal
// data.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/operator_access.h"
#include "server/usecase/settle_observer.h"
#include "userintent/admin/v1/ledger_admin_service.pb.h"

namespace userintent::admin {

class OperatorService {
 public:
  struct Options {
    ledger::OperatorAccess* ledger = nullptr;  // outlives this
    // Under the ledger's keys; null: nothing can be found by a hash. Outlives this.
    const intent::Fingerprinter* fingerprinter = nullptr;
    usecase::SettleObserver* settle_observer = nullptr;  // told of what is resolved; null: nobody is. Outlives this
    std::string path;                                    // of the ledger file, for its size
    bool server_runs = true;                             // false: what is SENDING has lost its owner
    absl::Time (*now)() = absl::Now;
  };

  explicit OperatorService(Options options) : options_(std::move(options)) {}

  absl::Status ShowRequest(const v1::ShowRequestRequest& request, v1::ShowRequestResponse* response);
  absl::Status ListUnresolved(const v1::ListUnresolvedRequest& request, v1::ListUnresolvedResponse* response);
  absl::Status GetStatistics(const v1::GetStatisticsRequest& request, v1::GetStatisticsResponse* response);
  absl::Status ResolveRequest(const v1::ResolveRequestRequest& request, v1::ResolveRequestResponse* response);
  absl::Status ListAudit(const v1::ListAuditRequest& request, v1::ListAuditResponse* response);
  absl::Status ListConflicts(const v1::ListConflictsRequest& request, v1::ListConflictsResponse* response);
  absl::Status FindRequests(const v1::FindRequestsRequest& request, v1::FindRequestsResponse* response);
  // `cancelled` is asked now and then; true: the copy is given up.
  absl::Status BackUp(
      const v1::BackUpRequest& request, v1::BackUpResponse* response,
      std::function<bool()> cancelled = [] { return false; });

 private:
  absl::Status AddEvidence(ledger::Inspector& inspector, const ledger::Record& record, v1::Request* out) const;
  // The refusal of a resolve without an outcome.
  absl::Status TellAcceptedOutcomes(const ledger::Key& key) const;
  absl::Status CheckKeys(ledger::Inspector& inspector) const;

  const Options options_;
  std::atomic_flag backing_up_;  // set while a copy is made: one at a time
};

}  // namespace userintent::admin
