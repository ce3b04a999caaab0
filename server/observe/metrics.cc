#include "server/observe/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "server/observe/metric_makers.h"
#include "server/observe/metrics_parts.h"

// In this file: helpers that make one metric; the constructor, a table of all metrics. They count in metrics_count.cc.

namespace userintent::observe {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::Registry;

// Indexed by RefusedConnection.
constexpr std::string_view kRefusedNames[kRefusedConnections] = {"max_connections", "max_connections_per_address",
                                                                 "descriptors", "tls", "memory"};

// Indexed by EndedConnection.
constexpr std::string_view kEndedNames[kEndedConnections] = {
    "calls", "header_block", "unfinished_bytes", "resets", "idle_frames", "unfinished_time", "memory", "handshakes"};

// Indexed by SpanEnd.
constexpr std::string_view kSpanEndNames[] = {"exported", "dropped", "failed"};

// Indexed by LateEnd.
constexpr std::string_view kLateEndNames[kLateEnds] = {"silent", "lost", "gave_way"};

// Seconds. One fsync.
const Histogram::BucketBoundaries kCommitBuckets = {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                    0.05,    0.1,    0.25,  0.5,    1,     5};

const Histogram::BucketBoundaries kBatchBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};

Histogram* MakeHistogram(Registry& registry, const std::string& name, const std::string& help,
                         const Histogram::BucketBoundaries& buckets) {
  return &BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

}  // namespace

Metrics::Metrics(const BuildInfo& build, const Labels& names) : parts_(std::make_unique<Parts>()) {
  parts_->AddProcess(build);
  parts_->AddCalls(names);
  parts_->AddWatches(names);
  parts_->AddUpstream(names);
  parts_->AddSettling(names);
  parts_->AddFollowUp();
  parts_->AddLedger();
  parts_->AddOperation();
  parts_->tls = std::make_unique<TlsMetrics>(parts_->registry, names.handshake_results);
  parts_->webhooks = std::make_unique<WebhookMetrics>(parts_->registry, names.webhooks);
  parts_->replica = std::make_unique<ReplicaMetrics>(parts_->registry);
  parts_->breaker = std::make_unique<BreakerMetrics>(parts_->registry, names.breaker);
  parts_->limit = std::make_unique<LimitMetrics>(parts_->registry, names.queue_ends);
  parts_->policy = std::make_unique<PolicyMetrics>(parts_->registry, names.methods, names.policy_would_deny);
}

void Metrics::Parts::AddProcess(const BuildInfo& build) {
  BuildGauge()
      .Name("userintent_build_info")
      .Help("Always 1; the labels say what runs.")
      .Register(registry)
      .Add({{"version", std::string(build.version)},
            {"grpc", std::string(build.grpc)},
            {"curl", std::string(build.curl)},
            {"sqlite", std::string(build.sqlite)}})
      .Set(1);
  MakeGauge(registry, "userintent_start_time_seconds", "When the process started, in seconds since 1970.")
      ->Set(absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()));
}

void Metrics::Parts::AddCalls(const Labels& names) {
  Family<Counter>& calls = BuildCounter()
                               .Name("userintent_calls_total")
                               .Help("Finished calls by method, gRPC code and reason (NONE: success).")
                               .Register(registry);
  Family<Counter>& replayed_calls = BuildCounter()
                                        .Name("userintent_replayed_calls_total")
                                        .Help("Finished calls that were answered from the ledger.")
                                        .Register(registry);
  for (const std::string_view name : names.methods) {
    const std::string method(name);
    MethodParts& parts = methods.emplace_back();
    for (const ReasonLabels& labels : names.reasons) {
      parts.calls.push_back(
          &calls.Add({{"method", method}, {"code", std::string(labels.code)}, {"reason", std::string(labels.reason)}}));
    }
    parts.calls.push_back(&calls.Add({{"method", method}, {"code", "UNKNOWN"}, {"reason", "OTHER"}}));
    parts.replayed = &replayed_calls.Add({{"method", method}});
  }
  for (const ReasonLabels& labels : names.reasons) codes.push_back(labels.code);
  codes.emplace_back("UNKNOWN");
  rpc = std::make_unique<RpcMetrics>(registry, names.service, names.methods, codes);
  Family<Counter>& refusals = BuildCounter()
                                  .Name("userintent_refusals_by_attempts_left_total")
                                  .Help(
                                      "Creations that were refused or failed, by the attempts that their e-mail "
                                      "address surely has left; where the answer tells them.")
                                  .Register(registry);
  for (int i = 0; i <= kMostAttemptsLeft; ++i) {
    attempts_left[static_cast<size_t>(i)] =
        &refusals.Add({{"left", i < kMostAttemptsLeft ? std::to_string(i) : "more"}});
  }
  in_flight = MakeGauge(registry, "userintent_calls_in_flight", "Calls admitted and not finished.");
}

void Metrics::Parts::AddWatches(const Labels& names) {
  watch_streams = MakeGauge(registry, "userintent_watch_streams", "Open streams of WatchUserIntents.");
  Family<Counter>& events =
      BuildCounter().Name("userintent_watch_events_total").Help("Messages to watchers by kind.").Register(registry);
  for (const std::string_view event : names.watch_events) {
    watch_events.push_back(&events.Add({{"event", std::string(event)}}));
  }
  Family<Counter>& ends = BuildCounter()
                              .Name("userintent_watch_ends_total")
                              .Help("Streams of WatchUserIntents that ended, or were not let in (refused), by cause.")
                              .Register(registry);
  for (const std::string_view why : names.watch_ends) watch_ends.push_back(&ends.Add({{"cause", std::string(why)}}));
}

void Metrics::Parts::AddUpstream(const Labels& names) {
  Family<Counter>& post_family = BuildCounter()
                                     .Name("userintent_upstream_posts_total")
                                     .Help("POSTs to Astra by what became of them.")
                                     .Register(registry);
  for (const std::string_view verdict : names.post_verdicts) {
    posts.push_back(&post_family.Add({{"verdict", std::string(verdict)}}));
  }
  http_client = std::make_unique<HttpClientMetrics>(registry, names.http_errors);
  posts_in_flight = MakeGauge(registry, "userintent_upstream_posts_in_flight", "POSTs begun and not ended.");
  Family<Counter>& read_family = BuildCounter()
                                     .Name("userintent_upstream_reads_total")
                                     .Help("GETs to Astra by who asked for them and what became of them.")
                                     .Register(registry);
  Family<Counter>& held_back_family = BuildCounter()
                                          .Name("userintent_upstream_reads_held_back_total")
                                          .Help("GETs that were not begun, because their asker had to wait.")
                                          .Register(registry);
  for (const std::string_view asker : names.read_askers) {
    std::vector<Counter*>& of_asker = reads.emplace_back();
    for (const std::string_view verdict : names.read_verdicts) {
      of_asker.push_back(&read_family.Add({{"asker", std::string(asker)}, {"verdict", std::string(verdict)}}));
    }
    reads_held_back.push_back(&held_back_family.Add({{"asker", std::string(asker)}}));
  }
  connections_opened =
      MakeCounter(registry, "userintent_upstream_connections_opened_total", "Connections opened to Astra.");
  reuse_refused = MakeCounter(registry, "userintent_upstream_reuse_refused_total",
                              "Pooled connections thrown away because they were closed or held unsolicited bytes.");
  resend_refused = MakeCounter(registry, "userintent_upstream_resend_refused_total",
                               "Hidden re-sends by the HTTP library that were stopped.");
  edge_rejections = MakeCounter(registry, "userintent_upstream_edge_rejections_total",
                                "401 and 403 whose body is no error of Astra's: perhaps an edge in front of it.");
  headers_ignored = MakeCounter(registry, "userintent_upstream_headers_ignored_total",
                                "Header fields of Astra's answers that HTTP/2 forbids, and that were ignored.");
}

void Metrics::Parts::AddSettling(const Labels& names) {
  late_exchanges = MakeGauge(registry, "userintent_late_exchanges",
                             "POSTs whose time was over without an answer, and that are still listened to.");
  Family<Counter>& answers = BuildCounter()
                                 .Name("userintent_late_answers_total")
                                 .Help(
                                     "POSTs that were listened to after their time, by the late answer's verdict or "
                                     "why none is waited for any more.")
                                 .Register(registry);
  for (const std::string_view verdict : names.post_verdicts) {
    late_answers.push_back(&answers.Add({{"outcome", std::string(verdict)}}));
  }
  for (size_t i = 0; i < kLateEnds; ++i) {
    late_ends[i] = &answers.Add({{"outcome", std::string(kLateEndNames[i])}});
  }
  Family<Counter>& settled_family = BuildCounter()
                                        .Name("userintent_settled_total")
                                        .Help("Unknown outcomes that became known, by the proof and the new state.")
                                        .Register(registry);
  Family<Counter>& conflict_family = BuildCounter()
                                         .Name("userintent_settle_conflicts_total")
                                         .Help("Evidence that contradicts what the ledger says, by its kind.")
                                         .Register(registry);
  for (const std::string_view way : names.settle_ways) {
    std::vector<Counter*>& states = settled.emplace_back();
    for (const std::string_view state : names.settled_states) {
      states.push_back(&settled_family.Add({{"way", std::string(way)}, {"state", std::string(state)}}));
    }
    settle_conflicts.push_back(&conflict_family.Add({{"way", std::string(way)}}));
  }
}

void Metrics::Parts::AddFollowUp() {
  followed =
      MakeGauge(registry, "userintent_follow_up_intents", "Requests whose intent is read without being asked for.");
  followed_watched = MakeGauge(registry, "userintent_follow_up_watched", "Of these, those that somebody watches.");
  follow_up_late =
      MakeGauge(registry, "userintent_follow_up_late_seconds",
                "How long the first of the others has been due: grows while the read budget is too small.");
  follow_up_left_out = MakeCounter(registry, "userintent_follow_up_left_out_total",
                                   "Requests that are not followed, because there are too many.");
}

void Metrics::Parts::AddLedger() {
  commit_seconds =
      MakeHistogram(registry, "userintent_ledger_commit_seconds", "Time of one durable commit.", kCommitBuckets);
  commit_operations = MakeHistogram(registry, "userintent_ledger_commit_operations",
                                    "Operations in one durable commit.", kBatchBuckets);
  commit_failures = MakeCounter(registry, "userintent_ledger_commit_failures_total", "Commits that failed.");
  ledger_writable = MakeGauge(registry, "userintent_ledger_writable", "1 while the ledger can be written.");
  ledger_last_commit = MakeGauge(registry, "userintent_ledger_last_commit_timestamp_seconds",
                                 "When something was last made durable, in Unix time; 0: not yet.");
  ledger_uncommitted = MakeGauge(registry, "userintent_ledger_uncommitted_outcomes",
                                 "Outcomes kept in memory until the disk takes them.");
  recovered_rows = MakeGauge(registry, "userintent_ledger_recovered_rows",
                             "Requests whose outcome became unknown because the last process ended meanwhile.");
  persons_told_across = MakeCounter(registry, "userintent_person_exists_across_callers_total",
                                    "Calls that heard PERSON_EXISTS about a person of another caller.");
  unresolved = MakeGauge(registry, "userintent_unresolved_requests",
                         "Requests with an unknown outcome, those that were superseded among them; looked at every few "
                         "seconds, and counted up to 100000.");
  unresolved_oldest = MakeGauge(registry, "userintent_unresolved_oldest_seconds",
                                "How long ago the oldest of them was begun; 0: there is none.");
  purged_rows = MakeCounter(registry, "userintent_ledger_purged_rows_total",
                            "Requests forgotten because of --retention or --released_retention.");
  ledger_rows = MakeGauge(registry, "userintent_ledger_rows", "Requests in the ledger.");
  ledger_made_at = MakeGauge(registry, "userintent_ledger_made_at_seconds", "When the ledger was made, in Unix time.");
  ledger_restored = MakeGauge(registry, "userintent_ledger_restored_at_seconds",
                              "Time of the backup that was acknowledged by --ledger_restored, in Unix time; 0: none.");
  ledger_in_place =
      MakeGauge(registry, "userintent_ledger_in_place", "1 while the ledger's files are where they were opened.");
  ledger_in_place->Set(1);
}

void Metrics::Parts::AddOperation() {
  spans = MakeCounters(registry, "userintent_trace_spans_total",
                       "Spans of traces for --otlp_endpoint, by what became of them: dropped where the queue was full, "
                       "failed where the collector did not take them.",
                       "result", kSpanEndNames);
  draining = MakeGauge(registry, "userintent_draining", "1 from the order to stop on.");
  Family<Counter>& reloads = BuildCounter()
                                 .Name("userintent_credential_reloads_total")
                                 .Help("Changed secret files or certificates that were read again.")
                                 .Register(registry);
  credential_reloads = {&reloads.Add({{"result", "failed"}}), &reloads.Add({{"result", "ok"}})};
  connections = MakeGauge(registry, "userintent_connections", "Open connections of callers.");
  Family<Counter>& refused = BuildCounter()
                                 .Name("userintent_connections_refused_total")
                                 .Help("Callers' connections that were not taken in, or whose TLS handshake failed.")
                                 .Register(registry);
  for (size_t i = 0; i < kRefusedConnections; ++i) {
    refused_connections[i] = &refused.Add({{"reason", std::string(kRefusedNames[i])}});
  }
  Family<Counter>& ended = BuildCounter()
                               .Name("userintent_connections_ended_total")
                               .Help("Callers' connections that were ended because they did what no client does.")
                               .Register(registry);
  for (size_t i = 0; i < kEndedConnections; ++i) {
    ended_connections[i] = &ended.Add({{"reason", std::string(kEndedNames[i])}});
  }
  port_answers = MakeGauge(registry, "userintent_port_answers",
                           "1 while the gateway's own port and calls are answered; /livez says so too.");
  log_lines_dropped = MakeCounter(
      registry, "userintent_log_lines_dropped_total",
      "Log lines lost because the reader of stderr was too slow; at least, as lines that went together count once.");
}

}  // namespace userintent::observe
