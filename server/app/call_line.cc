#include "server/app/call_line.h"

#include <array>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "server/observe/log.h"
#include "server/rpc/traceparent.h"
#include "server/usecase/error_table.h"

namespace userintent {
namespace {

using observe::Field;
using observe::Key;
using observe::Level;
using observe::SafeText;
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

std::chrono::microseconds Micros(SteadyClock::duration time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time);
}

// The fields of one line, and the texts that they refer to.
class Fields {
 public:
  void Add(const Field& field) { fields_.push_back(field); }
  // A text that is made for the line. Empty ones are left out.
  void Add(Key key, std::string text) {
    if (text.empty()) return;
    std::string& kept = texts_[text_count_++] = std::move(text);
    Add(Field(key, SafeText(kept)));
  }
  void Add(Key key, std::string_view text) {
    if (!text.empty()) Add(Field(key, SafeText(text)));
  }

  void Write(Level level) const { observe::Log(level, "call", std::span<const Field>(fields_.data(), fields_.size())); }

 private:
  absl::InlinedVector<Field, 20> fields_;
  std::array<std::string, 3> texts_;
  size_t text_count_ = 0;
};

std::string_view SentOf(const EndedCall& call) {
  if (call.created) return usecase::SentWord(ledger::Sent::kYes);
  if (call.error != nullptr) return call.error->sent ? usecase::SentWord(*call.error->sent) : std::string_view();
  // Its caller left: who cancels cannot know, and neither can this line.
  return call.method == rpc::Method::kCreateUserIntent ? usecase::SentWord(ledger::Sent::kMaybe) : std::string_view();
}

// The words that metrics have.
std::string_view ReasonOf(const EndedCall& call) {
  if (!call.reason) return "CALLER_LEFT";
  return *call.reason == v1::ERROR_REASON_UNSPECIFIED ? "NONE" : usecase::ReasonName(*call.reason);
}

void AddTrail(const usecase::Trail& trail, Fields& fields) {
  if (trail.attempt_id) fields.Add("attempt_id", UuidText(*trail.attempt_id));
  if (trail.posts > 0) fields.Add(Field("attempts", trail.posts));
  if (trail.begin) fields.Add(Field("begin_ms", Micros(*trail.begin)));
  if (trail.queued) fields.Add(Field("queue_ms", Micros(*trail.queued)));
  if (trail.posts > 0) fields.Add(Field("upstream_ms", Micros(trail.upstream)));
  if (trail.finish) fields.Add(Field("finish_ms", Micros(*trail.finish)));
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

  Fields fields;
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
  if (trail != nullptr) AddTrail(*trail, fields);
  fields.Add(Field("total_ms", Micros(call.took)));
  if (call.span != nullptr) {
    fields.Add("trace_id", TraceIdText(call.span->own.trace_id));
  } else if (call.context != nullptr) {
    if (const auto trace = rpc::TraceOf(*call.context)) fields.Add("trace_id", TraceIdText(trace->trace_id));
  }
  if (*held > 0) fields.Add(Field("suppressed", *held));
  fields.Write(level);
}

}  // namespace userintent
