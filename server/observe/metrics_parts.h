// The handles of all metrics, and how each group of series is registered (metrics.cc) before anything is counted
// (metrics_count.cc). For these two files.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "server/observe/metrics.h"
#include "server/observe/rpc_metrics.h"

namespace userintent::observe {

// Each function registers one group of series.
struct Metrics::Parts {
  void AddProcess(const BuildInfo& build);
  void AddCalls(const Labels& names);
  void AddWatches(const Labels& names);
  void AddUpstream(const Labels& names);
  void AddSettling(const Labels& names);
  void AddFollowUp();
  void AddLedger();
  void AddOperation();

  prometheus::Registry registry;
  struct MethodParts {
    std::vector<prometheus::Counter*> calls;  // by reason; the last one is OTHER
    prometheus::Counter* replayed = nullptr;
  };
  std::vector<MethodParts> methods;
  std::vector<std::string_view> codes;  // by reason, as MethodParts::calls
  std::array<prometheus::Counter*, kMostAttemptsLeft + 1> attempts_left{};
  prometheus::Gauge* in_flight = nullptr;
  prometheus::Gauge* watch_streams = nullptr;
  std::vector<prometheus::Counter*> watch_events;
  std::vector<prometheus::Counter*> watch_ends;
  std::vector<prometheus::Counter*> posts;               // by verdict
  std::vector<std::vector<prometheus::Counter*>> reads;  // by asker and verdict
  std::vector<prometheus::Counter*> reads_held_back;     // by asker
  prometheus::Gauge* followed = nullptr;
  prometheus::Gauge* followed_watched = nullptr;
  prometheus::Gauge* follow_up_late = nullptr;
  prometheus::Counter* follow_up_left_out = nullptr;
  prometheus::Gauge* posts_in_flight = nullptr;
  std::vector<prometheus::Counter*> late_answers;  // by verdict
  std::array<prometheus::Counter*, kLateEnds> late_ends{};
  prometheus::Gauge* late_exchanges = nullptr;
  std::vector<std::vector<prometheus::Counter*>> settled;  // by way and state
  std::vector<prometheus::Counter*> settle_conflicts;      // by way
  prometheus::Counter* connections_opened = nullptr;
  prometheus::Counter* reuse_refused = nullptr;
  prometheus::Counter* resend_refused = nullptr;
  prometheus::Counter* headers_ignored = nullptr;
  prometheus::Counter* edge_rejections = nullptr;
  prometheus::Histogram* commit_seconds = nullptr;
  prometheus::Histogram* commit_operations = nullptr;
  prometheus::Counter* commit_failures = nullptr;
  prometheus::Gauge* ledger_writable = nullptr;
  prometheus::Gauge* ledger_last_commit = nullptr;
  prometheus::Gauge* ledger_uncommitted = nullptr;
  prometheus::Gauge* recovered_rows = nullptr;
  prometheus::Counter* purged_rows = nullptr;
  prometheus::Counter* persons_told_across = nullptr;
  prometheus::Gauge* unresolved = nullptr;
  prometheus::Gauge* unresolved_oldest = nullptr;
  prometheus::Gauge* ledger_rows = nullptr;
  prometheus::Gauge* ledger_made_at = nullptr;
  prometheus::Gauge* ledger_restored = nullptr;
  prometheus::Gauge* ledger_in_place = nullptr;
  std::vector<prometheus::Counter*> spans;  // by SpanEnd
  prometheus::Gauge* draining = nullptr;
  std::array<prometheus::Counter*, 2> credential_reloads{};  // [ok]
  prometheus::Gauge* connections = nullptr;
  std::array<prometheus::Counter*, kRefusedConnections> refused_connections{};
  std::array<prometheus::Counter*, kEndedConnections> ended_connections{};
  prometheus::Gauge* port_answers = nullptr;
  prometheus::Counter* log_lines_dropped = nullptr;
  std::atomic<uint64_t> dropped_told{0};  // of the log's own count, by that counter
  std::unique_ptr<RpcMetrics> rpc;
  std::unique_ptr<HttpClientMetrics> http_client;
  std::unique_ptr<WebhookMetrics> webhooks;
  std::unique_ptr<LimitMetrics> limit;
  std::unique_ptr<PolicyMetrics> policy;
  std::unique_ptr<TlsMetrics> tls;
  std::unique_ptr<ReplicaMetrics> replica;
  std::unique_ptr<BreakerMetrics> breaker;
};

}  // namespace userintent::observe
