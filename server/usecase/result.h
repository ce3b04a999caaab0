// Result: what a handler answers, a message or a CallError, before rpc/ turns it into gRPC's words. Pure values; any
// thread.
//
// A CallError is begun by Of() or From...() and nowhere else, so that its fields always agree with the error table.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "server/intent/rules.h"
#include "server/ledger/ledger.h"
#include "server/usecase/error_table.h"
#include "server/usecase/trail.h"

namespace userintent::usecase {

// What REQUEST_ID_REUSED says when nothing but the Unicode form of a text differs. A new id, as the table's text
// advises for new content, would be a second creation of the same person.
inline constexpr std::string_view kOtherFormMessage =
    "This request_id was used before with the same content in another Unicode form (such as NFC and NFD). Nothing was "
    "sent; repeat the very bytes of the first call, with this request_id.";

struct CallError {
  v1::ErrorReason reason = v1::ERROR_REASON_INTERNAL;
  Recovery recovery = Recovery::kStop;
  std::optional<ledger::Sent> sent;               // nothing: the error does not speak of a creation
  absl::Duration retry_after = absl::Seconds(1);  // told where ErrorRow::retry_info is true
  bool replayed = false;                          // from the row, not from this call's own try
  std::optional<ledger::Budget> attempts;
  int http_status = 0;  // Astra's; 0: no status line
  std::string astra_request_id;
  std::string existing_intent_id;
  std::optional<Uuid> unresolved_request_id;
  std::vector<intent::Violation> violations;
  std::string_view message;  // instead of the table's, where it is not empty; fixed text

  // With the table's values.
  static CallError Of(v1::ErrorReason reason);
  // Some fields break a rule; all of them are named.
  static CallError Of(std::vector<intent::Violation> violations);
  // Why the ledger did not let a creation begin: one of the verdicts that refuse.
  static CallError FromLedger(const ledger::BeginAnswer& answer);
  // What a repeat of the call hears from its row (FAILED, UNKNOWN, RELEASED).
  static CallError FromRecord(const ledger::Record& record);
};

// The fields of ErrorInfo.metadata, in one place for errors and for Creation.error.
void FillErrorInfo(const CallError& error, google::rpc::ErrorInfo* info);

template <typename T>
class Result {
 public:
  // Implicit, as with StatusOr: a handler answers either with the same call.
  Result(T value) : either_(std::in_place_index<0>, std::move(value)) {}          // NOLINT(google-explicit-constructor)
  Result(CallError error) : either_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return either_.index() == 0; }
  // Only of a result that is ok.
  T& value() { return *std::get_if<0>(&either_); }
  const T& value() const { return *std::get_if<0>(&either_); }
  // Only of one that is not.
  CallError& error() { return *std::get_if<1>(&either_); }
  const CallError& error() const { return *std::get_if<1>(&either_); }

  // How it came about, for the log.
  void set_trail(Trail trail) { trail_ = std::move(trail); }
  const Trail& trail() const { return trail_; }

 private:
  std::variant<T, CallError> either_;
  Trail trail_;
};

}  // namespace userintent::usecase
