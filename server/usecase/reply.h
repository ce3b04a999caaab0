// Reply: what a caller hears, before it is put into gRPC's words. And the error table of the contract (section 3).
//
// Pure values; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/intent/rules.h"
#include "server/ledger/ledger.h"
#include "userintent/v1/errors.pb.h"
#include "userintent/v1/user_intent_service.pb.h"

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

// What REQUEST_ID_REUSED says when nothing but the Unicode form of a text differs. A new id, as the table's text
// advises for new content, would be a second creation of the same person.
inline constexpr std::string_view kOtherFormMessage =
    "This request_id was used before with the same content in another Unicode form (such as NFC and NFD). Nothing was "
    "sent; repeat the very bytes of the first call, with this request_id.";

// Total: a reason that is not in the table is the row of INTERNAL.
const ErrorRow& RowOf(v1::ErrorReason reason);

std::string_view RecoveryWord(Recovery recovery);
std::string_view SentWord(ledger::Sent sent);

struct Reply {
  // UNSPECIFIED: it is an answer, not an error.
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;

  // Answers and errors.
  bool replayed = false;
  std::optional<ledger::Budget> attempts;
  int attempt_limit = 0;
  std::string astra_request_id;

  // Answers to CreateUserIntent; none for validate_only.
  std::optional<v1::UserIntent> user_intent;

  // Errors.
  ledger::Sent sent = ledger::Sent::kNo;
  Recovery recovery = Recovery::kStop;
  absl::Duration retry_after = absl::Seconds(1);  // with ErrorRow::retry_info
  int http_status = 0;
  std::string existing_intent_id;
  std::optional<Uuid> unresolved_request_id;
  std::vector<intent::Violation> violations;
  std::string_view message;  // instead of the table's, where it is not empty; fixed text

  bool ok() const { return reason == v1::ERROR_REASON_UNSPECIFIED; }

  // An error with the table's values.
  static Reply Error(v1::ErrorReason reason);
};

// Astra's word for a status, lower case as documented; UNSPECIFIED for any other.
v1::UserIntentStatus StatusOf(std::string_view astra_status);

v1::UserIntent ToUserIntent(const ledger::Answer& answer);

// What GetCreation answers for a row.
v1::Creation ToCreation(const ledger::Record& record, const ledger::Budget& budget, int attempt_limit);

// The reason's name as callers see it, without the enum's prefix; empty for a number that is none. Lives for ever.
std::string_view ReasonName(int reason);

// The fields of ErrorInfo.metadata, in one place for errors and for Creation.error.
void FillErrorInfo(const Reply& reply, google::rpc::ErrorInfo* info);

// The error that a repeat of the call gets from its row (FAILED, UNKNOWN, RELEASED).
Reply ErrorFromRecord(const ledger::Record& record);

}  // namespace userintent::usecase
