#include "server/app/call_line.h"

#include <optional>
#include <string_view>

#include "server/app/line_fields.h"
#include "server/observe/log.h"
#include "server/rpc/traceparent.h"
#include "server/usecase/error_table.h"

namespace userintent {
namespace {

using observe::Field;
using observe::Level;
using rpc::EndedCall;

bool HasLine(const EndedCall& call) {
  if (!call.reason) return call.method != rpc::Method::kWatchUserIntents;
  if (*call.reason == v1::ERROR_REASON_UNSPECIFIED) return call.created;
  return *call.reason != v1::ERROR_REASON_CALLER_NOT_ALLOWED;
}

// Something that an operator may have to look after; the rest is between the caller and Astra.
Level LevelOf(const EndedCall& call) {
  if (call.error == nullptr || call.replayed) return Level::kInfo;
  const bool unclear = call.error->reason == v1::ERROR_REASON_OUTCOME_UNKNOWN ||
                       call.error->reason == v1::ERROR_REASON_INTERNAL ||
                       call.error->recovery == usecase::Recovery::kWaitForOperator;
  return unclear ? Level::kWarn : Level::kInfo;
}

std::string_view SentOf(const EndedCall& call) {
  if (call.created) return usecase::SentWord(ledger::Sent::kYes);
  if (call.error != nullptr) return call.error->sent ? usecase::SentWord(*call.error->sent) : std::string_view();
  // Its caller left: who cancels cannot know, and this line only where the call did.
  if (call.trail != nullptr && call.trail->sent) return usecase::SentWord(*call.trail->sent);
  return call.method == rpc::Method::kCreateUserIntent ? usecase::SentWord(ledger::Sent::kMaybe) : std::string_view();
}

// The words that metrics have.
std::string_view ReasonOf(const EndedCall& call) {
  if (!call.reason) return "CALLER_LEFT";
  return *call.reason == v1::ERROR_REASON_UNSPECIFIED ? "NONE" : usecase::ReasonName(*call.reason);
}

}  // namespace

void CallLine::Write(const EndedCall& call) {
  if (!HasLine(call)) return;
  const Level level = LevelOf(call);
  if (!observe::LogEnabled(level)) return;
  const usecase::Trail* const trail = call.trail;
  const bool idle = trail == nullptr || trail->posts == 0;
  const std::optional<uint64_t> held = idle ? idle_calls_.Allow() : std::optional<uint64_t>(0);
  if (!held) return;

  LineFields fields;
  if (call.request_id) fields.Add("request_id", UuidText(*call.request_id));
  fields.Add("caller", call.caller);
  fields.Add("method", policy::NameOf(call.method));
  fields.Add("reason", ReasonOf(call));
  fields.Add("sent", SentOf(call));
  if (call.replayed) fields.Add(Field("replayed", true));
  // Of a call that began a POST, what Astra answered to it; else what is recorded of another one's.
  const int status = !idle ? trail->http_status : call.error != nullptr ? call.error->http_status : 0;
  if (status != 0) fields.Add(Field("http_status", status));
  if (!idle) {
    fields.Add("astra_request_id", std::string_view(trail->astra_request_id));
  } else if (call.error != nullptr) {
    fields.Add("astra_request_id", std::string_view(call.error->astra_request_id));
  }
  if (trail != nullptr) fields.Add(*trail);
  fields.Add(Field("total_ms", MicrosOf(call.took)));
  if (call.span != nullptr) {
    fields.Add("trace_id", TraceIdText(call.span->own.trace_id));
  } else if (call.context != nullptr) {
    if (const auto trace = rpc::TraceOf(*call.context)) fields.Add("trace_id", TraceIdText(trace->trace_id));
  }
  if (*held > 0) fields.Add(Field("suppressed", *held));
  fields.Write(level, "call");
}

}  // namespace userintent
