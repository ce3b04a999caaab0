#include "server/observe/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <vector>

#include "absl/time/clock.h"
#include "server/observe/log.h"

// In this file: helpers that make one metric; Parts, the handles; the constructor, a table of all metrics; the setters.

namespace userintent::observe {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

// Indexed by RefusedConnection.
constexpr std::string_view kRefusedNames[kRefusedConnections] = {"max_connections", "max_connections_per_address",
                                                                 "descriptors", "tls"};

// Indexed by LateEnd.
constexpr std::string_view kLateEndNames[kLateEnds] = {"silent", "lost", "gave_way"};

// Seconds. Calls, POSTs and GETs: from a replay out of the ledger to the hard limit of an exchange.
const Histogram::BucketBoundaries kCallBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                  0.5,   1,      2.5,   5,    10,    20,   35,  60};
// Seconds. One fsync.
const Histogram::BucketBoundaries kCommitBuckets = {0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                                    0.05,    0.1,    0.25,  0.5,    1,     5};

const Histogram::BucketBoundaries kBatchBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256};

Counter* MakeCounter(Registry& registry, const std::string& name, const std::string& help) {
  return &BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

Gauge* MakeGauge(Registry& registry, const std::string& name, const std::string& help) {
  return &BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

Histogram* MakeHistogram(Registry& registry, const std::string& name, const std::string& help,
                         const Histogram::BucketBoundaries& buckets) {
  return &BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

// A histogram's lock and allocation-free paths do not throw in practice; if one ever does, a lost count must not end a
// call.
template <typename F>
void Quietly(F&& f) noexcept {
  try {
    f();
  } catch (...) {
  }
}

}  // namespace

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

  Registry registry;
  struct MethodParts {
    std::vector<Counter*> calls;  // by reason; the last one is OTHER
    Counter* replayed = nullptr;
    Histogram* seconds = nullptr;
  };
  std::vector<MethodParts> methods;
  Gauge* in_flight = nullptr;
  Gauge* watch_streams = nullptr;
  std::vector<Counter*> watch_events;
  std::vector<Counter*> watch_ends;
  std::vector<Counter*> posts;               // by verdict
  std::vector<std::vector<Counter*>> reads;  // by asker and verdict
  std::vector<Counter*> reads_held_back;     // by asker
  Gauge* followed = nullptr;
  Gauge* followed_watched = nullptr;
  Gauge* follow_up_late = nullptr;
  Counter* follow_up_left_out = nullptr;
  Histogram* read_seconds = nullptr;
  Histogram* post_seconds = nullptr;
  Gauge* posts_in_flight = nullptr;
  std::vector<Counter*> late_answers;  // by verdict
  std::array<Counter*, kLateEnds> late_ends{};
  Gauge* late_exchanges = nullptr;
  std::vector<std::vector<Counter*>> settled;  // by way and state
  std::vector<Counter*> settle_conflicts;      // by way
  Counter* connections_opened = nullptr;
  Counter* reuse_refused = nullptr;
  Counter* resend_refused = nullptr;
  Counter* headers_ignored = nullptr;
  Counter* edge_rejections = nullptr;
  Histogram* commit_seconds = nullptr;
  Histogram* commit_operations = nullptr;
  Counter* commit_failures = nullptr;
  Gauge* ledger_writable = nullptr;
  Gauge* ledger_uncommitted = nullptr;
  Gauge* recovered_rows = nullptr;
  Counter* purged_rows = nullptr;
  Counter* persons_told_across = nullptr;
  Gauge* ledger_rows = nullptr;
  Gauge* ledger_made_at = nullptr;
  Gauge* ledger_restored = nullptr;
  Gauge* ledger_in_place = nullptr;
  Gauge* draining = nullptr;
  std::array<Counter*, 2> credential_reloads{};  // [ok]
  Gauge* connections = nullptr;
  std::array<Counter*, kRefusedConnections> refused_connections{};
  Gauge* port_answers = nullptr;
  Gauge* log_lines_dropped = nullptr;
  std::unique_ptr<WebhookMetrics> webhooks;
};

Metrics::Metrics(const BuildInfo& build, const Labels& names) : parts_(std::make_unique<Parts>()) {
  parts_->AddProcess(build);
  parts_->AddCalls(names);
  parts_->AddWatches(names);
  parts_->AddUpstream(names);
  parts_->AddSettling(names);
  parts_->AddFollowUp();
  parts_->AddLedger();
  parts_->AddOperation();
  parts_->webhooks = std::make_unique<WebhookMetrics>(parts_->registry, names.webhooks);
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
  Family<Histogram>& call_seconds = BuildHistogram()
                                        .Name("userintent_call_seconds")
                                        .Help("Time from the arrival of a call to its end.")
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
    parts.seconds = &call_seconds.Add({{"method", method}}, kCallBuckets);
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
  post_seconds = MakeHistogram(registry, "userintent_upstream_post_seconds",
                               "Time from the start of a POST to its end.", kCallBuckets);
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
  read_seconds = MakeHistogram(registry, "userintent_upstream_read_seconds", "Time from the start of a GET to its end.",
                               kCallBuckets);
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
  ledger_uncommitted = MakeGauge(registry, "userintent_ledger_uncommitted_outcomes",
                                 "Outcomes kept in memory until the disk takes them.");
  recovered_rows = MakeGauge(registry, "userintent_ledger_recovered_rows",
                             "Requests whose outcome became unknown because the last process ended meanwhile.");
  persons_told_across = MakeCounter(registry, "userintent_person_exists_across_callers_total",
                                    "Calls that heard PERSON_EXISTS about a person of another caller.");
  purged_rows =
      MakeCounter(registry, "userintent_ledger_purged_rows_total", "Ended requests forgotten because of --retention.");
  ledger_rows = MakeGauge(registry, "userintent_ledger_rows", "Requests in the ledger.");
  ledger_made_at = MakeGauge(registry, "userintent_ledger_made_at_seconds", "When the ledger was made, in Unix time.");
  ledger_restored = MakeGauge(registry, "userintent_ledger_restored_at_seconds",
                              "Time of the backup that was acknowledged by --ledger_restored, in Unix time; 0: none.");
  ledger_in_place =
      MakeGauge(registry, "userintent_ledger_in_place", "1 while the ledger's files are where they were opened.");
  ledger_in_place->Set(1);
}

void Metrics::Parts::AddOperation() {
  draining = MakeGauge(registry, "userintent_draining", "1 while the process drains.");
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
  port_answers =
      MakeGauge(registry, "userintent_port_answers", "1 while the gateway's own port answers; /livez says so too.");
  log_lines_dropped =
      MakeGauge(registry, "userintent_log_lines_dropped", "Log lines lost because the reader of stderr was too slow.");
}

Metrics::~Metrics() = default;

void Metrics::RecordCall(size_t method, int reason, bool replayed, absl::Duration latency) noexcept {
  const Parts::MethodParts& parts = parts_->methods[method];
  const size_t other = parts.calls.size() - 1;
  const size_t index = reason >= 0 && static_cast<size_t>(reason) < other ? static_cast<size_t>(reason) : other;
  parts.calls[index]->Increment();
  if (replayed) parts.replayed->Increment();
  Quietly([&] { parts.seconds->Observe(absl::ToDoubleSeconds(latency)); });
}

void Metrics::AddInFlight(int delta) noexcept { parts_->in_flight->Increment(delta); }

void Metrics::AddWatchStreams(int delta) noexcept { parts_->watch_streams->Increment(delta); }

void Metrics::CountWatchEvent(size_t event) noexcept { parts_->watch_events[event]->Increment(); }

void Metrics::CountWatchEnd(size_t why) noexcept { parts_->watch_ends[why]->Increment(); }

void Metrics::AddPostsInFlight(int delta) noexcept { parts_->posts_in_flight->Increment(delta); }

void Metrics::RecordPost(size_t verdict, absl::Duration latency) noexcept {
  parts_->posts[verdict]->Increment();
  Quietly([&] { parts_->post_seconds->Observe(absl::ToDoubleSeconds(latency)); });
}

void Metrics::SetFollowUp(int64_t all, int64_t watched, absl::Duration late) noexcept {
  parts_->followed->Set(static_cast<double>(all));
  parts_->followed_watched->Set(static_cast<double>(watched));
  parts_->follow_up_late->Set(absl::ToDoubleSeconds(late));
}

void Metrics::AddFollowUpLeftOut(uint64_t n) noexcept { parts_->follow_up_left_out->Increment(static_cast<double>(n)); }

void Metrics::CountReadHeldBack(size_t asker) noexcept { parts_->reads_held_back[asker]->Increment(); }

void Metrics::RecordLateAnswer(size_t verdict) noexcept { parts_->late_answers[verdict]->Increment(); }

void Metrics::AddLateEnds(LateEnd end, uint64_t n) noexcept {
  parts_->late_ends[static_cast<size_t>(end)]->Increment(static_cast<double>(n));
}

void Metrics::AddLateExchanges(int64_t delta) noexcept {
  parts_->late_exchanges->Increment(static_cast<double>(delta));
}

void Metrics::CountSettled(size_t way, size_t state) noexcept { parts_->settled[way][state]->Increment(); }

void Metrics::CountSettleConflict(size_t way) noexcept { parts_->settle_conflicts[way]->Increment(); }

void Metrics::RecordRead(size_t asker, size_t verdict, absl::Duration latency) noexcept {
  parts_->reads[asker][verdict]->Increment();
  Quietly([&] { parts_->read_seconds->Observe(absl::ToDoubleSeconds(latency)); });
}

void Metrics::AddConnectionsOpened(uint64_t n) noexcept {
  parts_->connections_opened->Increment(static_cast<double>(n));
}

void Metrics::AddReuseRefused(uint64_t n) noexcept { parts_->reuse_refused->Increment(static_cast<double>(n)); }

void Metrics::AddResendRefused(uint64_t n) noexcept { parts_->resend_refused->Increment(static_cast<double>(n)); }
void Metrics::CountEdgeRejection() noexcept { parts_->edge_rejections->Increment(); }
void Metrics::AddHeadersIgnored(uint64_t n) noexcept { parts_->headers_ignored->Increment(static_cast<double>(n)); }

void Metrics::RecordCommit(int operations, absl::Duration latency) noexcept {
  Quietly([&] {
    parts_->commit_operations->Observe(operations);
    parts_->commit_seconds->Observe(absl::ToDoubleSeconds(latency));
  });
}

void Metrics::CountCommitFailure() noexcept { parts_->commit_failures->Increment(); }

void Metrics::SetLedgerWritable(bool writable) noexcept { parts_->ledger_writable->Set(writable ? 1 : 0); }

void Metrics::SetLedgerUncommitted(int64_t outcomes) noexcept {
  parts_->ledger_uncommitted->Set(static_cast<double>(outcomes));
}

void Metrics::SetRecoveredRows(int64_t rows) noexcept { parts_->recovered_rows->Set(static_cast<double>(rows)); }

void Metrics::CountPersonToldAcross() noexcept { parts_->persons_told_across->Increment(); }
void Metrics::CountPurged(int64_t rows) noexcept { parts_->purged_rows->Increment(static_cast<double>(rows)); }

void Metrics::SetLedgerRows(int64_t rows) noexcept { parts_->ledger_rows->Set(static_cast<double>(rows)); }

void Metrics::SetLedgerMadeAt(absl::Time time) noexcept {
  parts_->ledger_made_at->Set(static_cast<double>(absl::ToUnixMillis(time)) / 1e3);
}

void Metrics::SetLedgerRestored(absl::Time backup) noexcept {
  parts_->ledger_restored->Set(static_cast<double>(absl::ToUnixMillis(backup)) / 1e3);
}

void Metrics::SetLedgerInPlace(bool in_place) noexcept { parts_->ledger_in_place->Set(in_place ? 1 : 0); }

void Metrics::SetDraining(bool draining) noexcept { parts_->draining->Set(draining ? 1 : 0); }

void Metrics::CountCredentialReload(bool ok) noexcept { parts_->credential_reloads[ok ? 1 : 0]->Increment(); }

void Metrics::SetConnections(int open) noexcept { parts_->connections->Set(open); }

void Metrics::AddRefusedConnections(RefusedConnection why, uint64_t n) noexcept {
  parts_->refused_connections[static_cast<size_t>(why)]->Increment(static_cast<double>(n));
}

void Metrics::SetPortAnswers(bool answers) noexcept { parts_->port_answers->Set(answers ? 1 : 0); }

WebhookMetrics& Metrics::webhooks() noexcept { return *parts_->webhooks; }

std::string Metrics::Text() const {
  parts_->log_lines_dropped->Set(static_cast<double>(DroppedLogLines()));
  return prometheus::TextSerializer().Serialize(parts_->registry.Collect());
}

}  // namespace userintent::observe
