// The error table of the contract (section 3): what each ErrorReason means to a caller. Constants; any thread.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "server/ledger/ledger.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::usecase {

// What may be done about an error. The words are ErrorInfo.metadata["recovery"].
enum class Recovery {
  kFixRequest,
  kFixWithNewId,
  kRetrySameId,
  kAskSameId,
  kUseExisting,
  kWaitForOperator,
  kStop,
};

// One row of the error table.
struct ErrorRow {
  v1::ErrorReason reason;
  absl::StatusCode code;  // the numbers are gRPC's
  ledger::Sent sent;      // for this refusal alone; the strongest over all tries of the id is reported
  Recovery recovery;
  bool retry_info;           // RetryInfo; otherwise the trailer grpc-retry-pushback-ms: -1
  std::string_view message;  // what to do, in one sentence; fixed text
};

// Total: a reason that is not in the table is the row of INTERNAL.
const ErrorRow& RowOf(v1::ErrorReason reason);

std::string_view RecoveryWord(Recovery recovery);
std::string_view SentWord(ledger::Sent sent);

// The reason's name as callers see it, without the enum's prefix; empty for a number that is none. Lives for ever.
std::string_view ReasonName(int reason);

}  // namespace userintent::usecase
