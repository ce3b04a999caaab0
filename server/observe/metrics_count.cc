#include <prometheus/text_serializer.h>

#include <algorithm>

#include "server/observe/log.h"
#include "server/observe/metric_makers.h"
#include "server/observe/metrics.h"
#include "server/observe/metrics_parts.h"

namespace userintent::observe {

Metrics::~Metrics() = default;

void Metrics::RecordCall(size_t method, int reason, bool replayed, absl::Duration latency) noexcept {
  const Parts::MethodParts& parts = parts_->methods[method];
  const size_t other = parts.calls.size() - 1;
  const size_t index = reason >= 0 && static_cast<size_t>(reason) < other ? static_cast<size_t>(reason) : other;
  parts.calls[index]->Increment();
  if (replayed) parts.replayed->Increment();
  parts_->rpc->RecordEnded(method, index, latency);
}

void Metrics::CountCallStarted(size_t method) noexcept { parts_->rpc->CountStarted(method); }

void Metrics::RecordOtherCall(std::string_view code, absl::Duration latency) noexcept {
  size_t place = 0;
  while (place + 1 < parts_->codes.size() && parts_->codes[place] != code) ++place;
  parts_->rpc->RecordEnded(parts_->methods.size(), place, latency);
}

void Metrics::CountRefusal(int attempts_left) noexcept {
  parts_->attempts_left[static_cast<size_t>(std::clamp(attempts_left, 0, kMostAttemptsLeft))]->Increment();
}

void Metrics::AddInFlight(int delta) noexcept { parts_->in_flight->Increment(delta); }

void Metrics::AddWatchStreams(int delta) noexcept { parts_->watch_streams->Increment(delta); }

void Metrics::CountWatchEvent(size_t event) noexcept { parts_->watch_events[event]->Increment(); }

void Metrics::CountWatchEnd(size_t why) noexcept { parts_->watch_ends[why]->Increment(); }

void Metrics::AddPostsInFlight(int delta) noexcept { parts_->posts_in_flight->Increment(delta); }

void Metrics::RecordPost(size_t verdict) noexcept { parts_->posts[verdict]->Increment(); }

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

void Metrics::RecordRead(size_t asker, size_t verdict) noexcept { parts_->reads[asker][verdict]->Increment(); }

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

void Metrics::SetLedgerLastCommit(absl::Time time) noexcept {
  parts_->ledger_last_commit->Set(absl::ToDoubleSeconds(time - absl::UnixEpoch()));
}

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

void Metrics::SetUnresolved(int64_t count, absl::Duration oldest) noexcept {
  parts_->unresolved->Set(static_cast<double>(count));
  parts_->unresolved_oldest->Set(absl::ToDoubleSeconds(oldest));
}

void Metrics::CountSpans(SpanEnd end, uint64_t n) noexcept {
  parts_->spans[static_cast<size_t>(end)]->Increment(static_cast<double>(n));
}

void Metrics::SetDraining(bool draining) noexcept { parts_->draining->Set(draining ? 1 : 0); }

void Metrics::CountCredentialReload(bool ok) noexcept { parts_->credential_reloads[ok ? 1 : 0]->Increment(); }

void Metrics::SetConnections(int open) noexcept { parts_->connections->Set(open); }

void Metrics::AddRefusedConnections(RefusedConnection why, uint64_t n) noexcept {
  parts_->refused_connections[static_cast<size_t>(why)]->Increment(static_cast<double>(n));
}

void Metrics::AddEndedConnections(EndedConnection why, uint64_t n) noexcept {
  parts_->ended_connections[static_cast<size_t>(why)]->Increment(static_cast<double>(n));
}

void Metrics::SetPortAnswers(bool answers) noexcept { parts_->port_answers->Set(answers ? 1 : 0); }

HttpClientMetrics& Metrics::http_client() noexcept { return *parts_->http_client; }
WebhookMetrics& Metrics::webhooks() noexcept { return *parts_->webhooks; }
TlsMetrics& Metrics::tls() noexcept { return *parts_->tls; }
ReplicaMetrics& Metrics::replica() noexcept { return *parts_->replica; }
BreakerMetrics& Metrics::breaker() noexcept { return *parts_->breaker; }
LimitMetrics& Metrics::limit() noexcept { return *parts_->limit; }

PolicyMetrics& Metrics::policy() noexcept { return *parts_->policy; }

std::string Metrics::Text() const {
  const uint64_t dropped = DroppedLogLines();
  uint64_t told = parts_->dropped_told.load();
  while (told < dropped && !parts_->dropped_told.compare_exchange_weak(told, dropped)) {
  }
  if (told < dropped) parts_->log_lines_dropped->Increment(static_cast<double>(dropped - told));
  return prometheus::TextSerializer().Serialize(parts_->registry.Collect());
}

}  // namespace userintent::observe
