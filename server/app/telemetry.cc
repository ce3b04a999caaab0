#include "server/app/telemetry.h"

#include <array>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "server/app/line_fields.h"
#include "server/app/spans.h"
#include "server/app/webhooks.h"
#include "server/astra/error_type.h"
#include "server/config/flags.h"
#include "server/observe/log.h"
#include "server/rpc/handshake_result.h"
#include "server/rpc/methods.h"
#include "server/usecase/error_table.h"

namespace userintent {
namespace {

using observe::Level;
using observe::Log;
using observe::SafeText;

std::string_view ReasonWord(int reason) {
  const std::string_view name = usecase::ReasonName(reason);
  return name.empty() ? "NONE" : name;
}

constexpr int kCallerLeft = v1::ErrorReason_ARRAYSIZE;  // one past the last reason

// absl::StatusCodeToString gives string objects; these live as long as the process.
std::string_view CodeName(absl::StatusCode code) {
  static const std::array<std::string, 17>& names = *[] {
    auto* all = new std::array<std::string, 17>;
    for (size_t i = 0; i < all->size(); ++i) (*all)[i] = absl::StatusCodeToString(static_cast<absl::StatusCode>(i));
    return all;
  }();
  return names[static_cast<size_t>(code) % names.size()];
}

std::string_view StateWord(ledger::State state) {
  switch (state) {
    case ledger::State::kSending:
      return "sending";
    case ledger::State::kSucceeded:
      return "succeeded";
    case ledger::State::kFailed:
      return "failed";
    case ledger::State::kUnknown:
      return "unknown";
    case ledger::State::kReleased:
      return "released";
  }
  return "unknown";
}

// The states that a proof leads to.
constexpr std::string_view kSettledStates[] = {"succeeded", "failed", "released"};

size_t SettledIndex(ledger::State state) {
  switch (state) {
    case ledger::State::kFailed:
      return 1;
    case ledger::State::kReleased:
      return 2;
    default:
      return 0;
  }
}

int64_t Milliseconds(SteadyClock::duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

}  // namespace

Telemetry::Telemetry(observe::Metrics& metrics, const config::Settings& settings)
    : metrics_(metrics), attempt_limit_(settings.email_attempt_limit) {
  if (settings.otlp_endpoint.empty()) return;
  observe::OtlpExporter::Options options;
  options.origin = config::Text(settings.otlp_endpoint);
  options.version = config::ProgramVersion();
  options.on_end = [&metrics](observe::SpanEnd end, size_t spans) { metrics.CountSpans(end, spans); };
  exporter_ = std::make_unique<observe::OtlpExporter>(std::move(options));
}

observe::Labels Telemetry::Labels() {
  // ErrorReason's numbers, and one more row for callers that left.
  static const auto& reasons = *[] {
    auto* all = new std::array<observe::ReasonLabels, kCallerLeft + 1>;
    for (int i = 0; i < kCallerLeft; ++i) {
      const auto reason = static_cast<v1::ErrorReason>(i);
      (*all)[static_cast<size_t>(i)] = {ReasonWord(i), CodeName(usecase::RowOf(reason).code)};
    }
    (*all)[0] = {"NONE", "OK"};
    (*all)[kCallerLeft] = {"CALLER_LEFT", "CANCELLED"};
    return all;
  }();
  return {reasons,
          policy::kMethodNames,
          astra::kVerdictNames,
          astra::kReadVerdictNames,
          usecase::kAskerNames,
          usecase::kSettleWays,
          kSettledStates,
          Webhooks::Labels(),
          usecase::kWatchEventNames,
          usecase::kWatchEndNames,
          policy::kWouldDenyNames,
          rpc::kHandshakeResultNames,
          {usecase::kBreakerStateNames, usecase::kBreakerCauseNames, usecase::kProbeResultNames},
          usecase::kQueueEndNames,
          rpc::ServiceName(),
          astra::kErrorTypes};
}

void Telemetry::OnPostBegun() { metrics_.AddPostsInFlight(1); }

void Telemetry::OnPost(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome,
                       SteadyClock::duration took) {
  metrics_.AddPostsInFlight(-1);
  metrics_.RecordPost(static_cast<size_t>(outcome.verdict));
  metrics_.http_client().Record(observe::HttpMethod::kPost, outcome.http_status, outcome.error_type,
                                absl::FromChrono(took));
  if (outcome.not_astras) metrics_.CountEdgeRejection();
  const bool created = outcome.verdict == astra::Verdict::kCreated;
  const Level level = created ? Level::kDebug : Level::kWarn;
  if (!observe::LogEnabled(level)) return;
  Log(level, "post_ended",
      {{"request_id", SafeText(UuidText(request_id))},
       {"attempt_id", SafeText(UuidText(attempt_id))},
       {"http_status", outcome.http_status},
       {"detail", SafeText(outcome.detail)},
       {"latency_ms", Milliseconds(took)}});
}

void Telemetry::OnTraced(const usecase::TracedExchange& exchange) {
  if (exporter_) exporter_->Export(SpanOf(exchange, absl::Now()));
}

void Telemetry::OnLateAnswer(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome) {
  metrics_.RecordLateAnswer(static_cast<size_t>(outcome.verdict));
  if (outcome.not_astras) metrics_.CountEdgeRejection();
  Log(Level::kInfo, "late_answer",
      {{"request_id", SafeText(UuidText(request_id))},
       {"attempt_id", SafeText(UuidText(attempt_id))},
       {"http_status", outcome.http_status},
       {"detail", SafeText(outcome.detail)}});
}

void Telemetry::OnSettled(usecase::SettleWay way, const ledger::Key& key, const ledger::SettleAnswer& answer) {
  const auto number = static_cast<size_t>(way);
  const bool conflict = answer.verdict == ledger::SettleVerdict::kConflict;
  if (conflict) metrics_.CountSettleConflict(number);
  const bool settled = answer.verdict == ledger::SettleVerdict::kSettled;
  if (settled) metrics_.CountSettled(number, SettledIndex(answer.record.state));
  if (!settled && !conflict) return;
  Log(conflict ? Level::kError : Level::kInfo, conflict ? observe::Event("settle_conflict") : observe::Event("settled"),
      {{"request_id", SafeText(UuidText(key.request_id))},
       {"caller", SafeText(key.caller)},
       {"way", SafeText(usecase::kSettleWays[number])},
       {"state", SafeText(StateWord(answer.record.state))},
       {"reason", SafeText(ReasonWord(answer.record.reason))},
       {"http_status", answer.record.answer.http_status}});
}

void Telemetry::OnRecorded(const usecase::Recorded& recorded) {
  const ledger::Record& record = recorded.record;
  const bool clear = record.state == ledger::State::kSucceeded || record.state == ledger::State::kFailed;
  // What a caller hears stands in its line. Of the rest, a row that an operator may have to look at is a warning.
  const Level level = !recorded.committed ? Level::kError
                      : recorded.told     ? Level::kDebug
                      : clear             ? Level::kInfo
                                          : Level::kWarn;
  if (!observe::LogEnabled(level)) return;
  LineFields fields;
  fields.Add("request_id", UuidText(record.key.request_id));
  fields.Add("caller", std::string_view(record.key.caller));
  fields.Add("state", StateWord(record.state));
  fields.Add("reason", ReasonWord(record.reason));
  fields.Add("sent", usecase::SentWord(record.sent));
  if (record.answer.http_status != 0) fields.Add({"http_status", record.answer.http_status});
  fields.Add("astra_request_id", std::string_view(record.answer.astra_request_id));
  fields.Add(recorded.trail);
  fields.Write(level,
               recorded.committed ? observe::Event("creation_recorded") : observe::Event("creation_not_recorded"));
}

void Telemetry::OnQueueEnd(usecase::QueueEnd why, SteadyClock::duration waited) {
  metrics_.limit().RecordWait(static_cast<size_t>(why), absl::FromChrono(waited));
}

void Telemetry::OnPersonToldAcross(const ledger::Key& key) {
  metrics_.CountPersonToldAcross();
  // Many of one caller: it guesses.
  Log(Level::kWarn, "person_exists_across_callers",
      {{"request_id", SafeText(UuidText(key.request_id))}, {"caller", SafeText(key.caller)}});
}

void Telemetry::OnProbesLimited(const std::string& caller) {
  // Of nobody's address: who asks is all that operators need.
  Log(Level::kWarn, "probes_limited", {{"caller", SafeText(caller)}});
}

void Telemetry::OnRead(usecase::Asker asker, const std::optional<Uuid>& request_id, const astra::ReadOutcome& outcome,
                       SteadyClock::duration took) {
  metrics_.RecordRead(static_cast<size_t>(asker), static_cast<size_t>(outcome.verdict));
  metrics_.http_client().Record(observe::HttpMethod::kGet, outcome.http_status, outcome.error_type,
                                absl::FromChrono(took));
  if (outcome.not_astras) metrics_.CountEdgeRejection();
  const Level level = outcome.verdict == astra::ReadVerdict::kRead ? Level::kDebug : Level::kWarn;
  if (!observe::LogEnabled(level)) return;
  Log(level, "read_ended",
      {{"request_id", SafeText(request_id ? UuidText(*request_id) : std::string())},
       {"asker", SafeText(usecase::kAskerNames[static_cast<size_t>(asker)])},
       {"http_status", outcome.http_status},
       {"detail", SafeText(outcome.detail)},
       {"latency_ms", Milliseconds(took)}});
}

void Telemetry::OnReadHeldBack(usecase::Asker asker) { metrics_.CountReadHeldBack(static_cast<size_t>(asker)); }

void Telemetry::OnBreakerState(usecase::BreakerState state) { metrics_.breaker().SetState(static_cast<size_t>(state)); }

void Telemetry::OnBreakerOpened(usecase::BreakerCause cause) {
  metrics_.breaker().CountOpened(static_cast<size_t>(cause));
  Log(Level::kError, "breaker_opened", {{"detail", SafeText(usecase::kBreakerCauseNames[static_cast<size_t>(cause)])}});
}

void Telemetry::OnBreakerClosed(usecase::BreakerCause cause) {
  Log(Level::kInfo, "breaker_closed", {{"detail", SafeText(usecase::kBreakerCauseNames[static_cast<size_t>(cause)])}});
}

void Telemetry::OnBreakerProbe(usecase::ProbeResult result) {
  metrics_.breaker().CountProbe(static_cast<size_t>(result));
}

void Telemetry::OnWatchOpened() { metrics_.AddWatchStreams(1); }

void Telemetry::OnWatchEvent(usecase::WatchEvent event) { metrics_.CountWatchEvent(static_cast<size_t>(event)); }

void Telemetry::OnWatchEnded(usecase::WatchEnd why, bool opened) {
  if (opened) metrics_.AddWatchStreams(-1);
  metrics_.CountWatchEnd(static_cast<size_t>(why));
}

void Telemetry::OnCallBegun(rpc::Method method) {
  metrics_.AddInFlight(1);
  metrics_.CountCallStarted(static_cast<size_t>(method));
}

void Telemetry::OnCallEnded(const rpc::EndedCall& call) {
  metrics_.AddInFlight(-1);
  metrics_.RecordCall(static_cast<size_t>(call.method), call.reason ? static_cast<int>(*call.reason) : kCallerLeft,
                      call.replayed, absl::FromChrono(call.took));
  const bool tells = call.method == rpc::Method::kCreateUserIntent && call.error != nullptr && call.error->attempts &&
                     !call.replayed && attempt_limit_ > 0;
  if (tells) metrics_.CountRefusal(attempt_limit_ - call.error->attempts->used_min);
  line_.Write(call);
  if (exporter_ && call.span != nullptr && call.span->own.sampled) exporter_->Export(SpanOf(call, absl::Now()));
}

void Telemetry::OnOtherCallBegun() { metrics_.CountCallStarted(policy::kMethodCount); }

void Telemetry::OnOtherCallEnded(std::string_view code, SteadyClock::duration took) {
  metrics_.RecordOtherCall(code, absl::FromChrono(took));
}

void Telemetry::OnDenied(rpc::Method method, const std::string& caller, const policy::Admission& admission) {
  const policy::Verdict& verdict = admission.verdict;
  if (verdict.would_deny) {
    metrics_.policy().CountWouldDeny(static_cast<size_t>(policy::WouldDeny::kMethod));
  } else {
    metrics_.policy().CountDenied(static_cast<size_t>(method));
  }
  if (!admission.line) return;
  Log(Level::kWarn, verdict.would_deny ? observe::Event("call_would_be_denied") : observe::Event("call_denied"),
      {{"caller", SafeText(caller)},
       {"method", SafeText(policy::NameOf(method))},
       {"rule", SafeText(verdict.rule != nullptr ? std::string_view(verdict.rule->name) : "(none)")},
       {"suppressed", *admission.line}});
}

void Telemetry::ShowFollowUp(const usecase::FollowUp::Stats& stats) {
  metrics_.SetFollowUp(static_cast<int64_t>(stats.followed), static_cast<int64_t>(stats.watched), stats.late);
  const uint64_t more = stats.left_out - std::exchange(left_out_, stats.left_out);
  if (more == 0) return;
  metrics_.AddFollowUpLeftOut(more);
  static observe::LogLimiter limiter(std::chrono::minutes(1));
  if (limiter.Allow()) Log(Level::kWarn, "follow_up_full", {{"count", stats.left_out}});
}

void Telemetry::ShowOverLimit(const policy::OverLimit& over_limit) {
  // By Limit, in whose order the reasons follow the first one, which is of methods.
  static_assert(policy::kWouldDenyCount == policy::kLimitCount + 1);
  const policy::OverLimit before = std::exchange(over_limit_, over_limit);
  for (size_t i = 0; i < policy::kLimitCount; ++i) {
    metrics_.policy().AddWouldDeny(i + 1, over_limit.passed[i] - before.passed[i]);
  }
  constexpr auto kProbes = static_cast<size_t>(policy::Limit::kProbeRate);
  metrics_.policy().AddProbesLimited(over_limit.refused[kProbes] - before.refused[kProbes]);
}

void Telemetry::ShowUpstream(const usecase::AdmissionControl::Upstream& upstream) {
  metrics_.limit().Set(upstream.limit, upstream.slots, static_cast<int64_t>(upstream.waiting));
}

void Telemetry::OnBug(std::string_view where) { Log(Level::kError, "bug", {{"component", SafeText(where)}}); }

}  // namespace userintent
