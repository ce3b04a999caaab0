// Telemetry: turns what happens to calls into metrics and log lines. The one place that decides what a log line about a
// call holds: ids, states, reasons, counts and times; never a value of the request.
//
// Called on the shards' threads; thread-safe. server.cc owns it; it outlives the shards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "server/app/call_line.h"
#include "server/config/settings.h"
#include "server/observe/metrics.h"
#include "server/observe/otlp_exporter.h"
#include "server/rpc/unary_method.h"
#include "server/usecase/creations.h"
#include "server/usecase/follow_up.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/upstream_breaker.h"
#include "server/usecase/watch_stream.h"

namespace userintent {

class Telemetry final : public rpc::CallObserver,
                        public usecase::CreationObserver,
                        public usecase::ReadObserver,
                        public usecase::WatchObserver,
                        public usecase::BreakerObserver {
 public:
  // Begins to export traces, if the settings say so: libcurl must have been set up.
  Telemetry(observe::Metrics& metrics, const config::Settings& settings);

  // What calls, POSTs, GETs and watches are counted by.
  static observe::Labels Labels();

  void OnPostBegun() override;
  void OnPost(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome,
              SteadyClock::duration took) override;
  void OnTraced(const usecase::TracedExchange& exchange) override;
  void OnLateAnswer(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome) override;
  void OnSettled(usecase::SettleWay way, const ledger::Key& key, const ledger::SettleAnswer& answer) override;
  void OnRecorded(const usecase::Recorded& recorded) override;
  void OnQueueEnd(usecase::QueueEnd why, SteadyClock::duration waited) override;
  void OnPersonToldAcross(const ledger::Key& key) override;
  void OnProbesLimited(const std::string& caller) override;
  void OnRead(usecase::Asker asker, const std::optional<Uuid>& request_id, const astra::ReadOutcome& outcome,
              SteadyClock::duration took) override;
  void OnReadHeldBack(usecase::Asker asker) override;
  void OnBreakerState(usecase::BreakerState state) override;
  void OnBreakerOpened(usecase::BreakerCause cause) override;
  void OnBreakerClosed(usecase::BreakerCause cause) override;
  void OnBreakerProbe(usecase::ProbeResult result) override;
  void OnWatchOpened() override;
  void OnWatchEvent(usecase::WatchEvent event) override;
  void OnWatchEnded(usecase::WatchEnd why, bool opened) override;
  void OnCallBegun(rpc::Method method) override;
  void OnCallEnded(const rpc::EndedCall& call) override;
  void OnOtherCallBegun() override;
  void OnOtherCallEnded(std::string_view code, SteadyClock::duration took) override;
  void OnDenied(rpc::Method method, const std::string& caller, const policy::Admission& admission) override;
  void OnBug(std::string_view where) override;

  // Main's thread, now and then.
  void ShowFollowUp(const usecase::FollowUp::Stats& stats);
  void ShowOverLimit(const policy::OverLimit& over_limit);
  void ShowUpstream(const usecase::AdmissionControl::Upstream& upstream);

 private:
  observe::Metrics& metrics_;
  const int attempt_limit_;                          // of an e-mail address; 0: none
  std::unique_ptr<observe::OtlpExporter> exporter_;  // null: traces are not exported
  CallLine line_;
  uint64_t left_out_ = 0;         // of the follow-up, what is in the metrics
  policy::OverLimit over_limit_;  // likewise
};

}  // namespace userintent
