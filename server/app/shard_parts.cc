#include "server/app/shard_parts.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "server/astra/rest_client.h"
#include "server/config/flags.h"
#include "server/http/auto_client.h"

namespace userintent {
namespace {

constexpr int kMostLate =
    1000;  // exchanges that are listened to for a late answer, in the process (contract section 7)

}  // namespace

http::Options HttpOptionsOf(const config::Settings& settings, const http::CaFile* authorities) {
  http::Options options;
  options.origin = settings.astra_base_url.Text();
  options.authorities = authorities;
  options.allow_private_address = settings.allow_private_upstream;
  options.loopback_ok = settings.astra_base_url.loopback();
  options.http2 = settings.upstream_http2;
  options.transport = settings.upstream_transport;
  options.reuse_http1 = false;  // docs/decisions/0003: one person's late answer must never become the next one's
  options.connect_timeout = absl::ToChronoMilliseconds(settings.connect_timeout);
  options.exchange_timeout = absl::ToChronoMilliseconds(settings.upstream_timeout);
  options.late_window = absl::ToChronoMilliseconds(settings.late_answer_window);
  options.max_late = static_cast<size_t>(std::max(1, kMostLate / settings.shard_count()));
  options.max_connections = std::max(1, settings.upstream_connections / settings.shard_count());
  options.http1_period = std::make_shared<http::Http1Period>();  // what one shard learns, all know
  return options;
}

usecase::AdmissionControl::Options AdmissionOptionsOf(const config::Settings& settings) {
  usecase::AdmissionControl::Options options;
  options.max_in_flight = settings.max_in_flight;
  options.min_deadline = absl::ToChronoMilliseconds(settings.min_deadline);
  options.clock = &SteadyClock::now;
  options.upstream.limit.min = settings.upstream_min_limit;
  options.upstream.limit.max = settings.upstream_max_limit();
  options.upstream.limit.timeout = absl::ToChronoMilliseconds(settings.upstream_timeout);
  options.upstream.most = static_cast<size_t>(settings.queue_limit);
  return options;
}

absl::StatusOr<std::unique_ptr<ShardParts>> ShardParts::Create(const SharedParts& shared,
                                                               grpc::ServerBuilder& builder) {
  const config::Settings& settings = shared.settings;
  std::unique_ptr<ShardParts> parts(new ShardParts(shared.metrics, shared.gatekeeper));
  auto http = http::CreateClient(shared.http);
  if (!http.ok()) return http.status();
  parts->http_ = *std::move(http);
  parts->astra_ = astra::NewRestClient(*parts->http_, shared.credentials, settings.astra_limit_error,
                                       "userintent-server/" + std::string(config::ProgramVersion()), absl::Now,
                                       settings.send_traceparent);
  parts->shard_ = std::make_unique<rpc::Shard>(builder.AddCompletionQueue(), *parts->http_);
  parts->creations_ = std::make_unique<usecase::Creations>(usecase::Creations::Dependencies{
      *parts->shard_, shared.ledger, *parts->astra_, shared.admission, shared.fingerprinter, shared.creation_observer,
      intent::RulesOptions{settings.kyc_delegation, settings.allow_non_public_ip}, settings.email_attempt_limit,
      shared.http.late_window});
  parts->context_ = std::make_unique<rpc::MethodContext>(rpc::MethodContext{
      *parts->shard_, shared.call_observer, static_cast<bool>(shared.tls),
      absl::ToChronoNanoseconds(settings.default_deadline), rpc::CertificateClock(shared.tls.authorities)});
  parts->context_->gate = &parts->gate_;
  const bool exported = !settings.otlp_endpoint.empty();
  parts->context_->tracing = {.on = exported || settings.send_traceparent, .sample_new = exported};
  parts->methods_ = rpc::NewMethods(
      shared.service, *parts->context_,
      rpc::UseCases{
          *parts->creations_,
          {{shared.ledger, shared.reads, {*parts->shard_, *parts->astra_}, shared.admission.options().min_deadline},
           settings.app_url() ? settings.app_url()->Text() : "",
           settings.oauth_redirect_uri.all,
           [&credentials = shared.credentials] { return credentials.Snapshot()->client_id; }},
          shared.ledger,
          *parts->shard_,
          settings.email_attempt_limit,
          {*parts->shard_, shared.ledger, shared.changes, shared.watch_hub, shared.watch_tokens, shared.watch_observer,
           settings.email_attempt_limit, absl::ToChronoNanoseconds(settings.max_connection_age)}});
  parts->health_ =
      std::make_unique<rpc::HealthCalls>(shared.health_service, shared.health, *parts->shard_, shared.call_observer);
  return parts;
}

void ShardParts::Start() {
  shard_->Start([this] {
    for (const auto& method : methods_) method->Post();
    health_->Start();
  });
}

void ShardParts::AnnouncePolicy() {
  shard_->Post([this] {
    for (const auto& method : methods_) method->OnPolicyChanged();
  });
}

void ShardParts::AnnounceHealth() {
  shard_->Post([this] { health_->Announce(); });
}

void ShardParts::CountUpstream() {
  shard_->Post([this] {
    const http::Stats& stats = http_->stats();
    metrics_.AddConnectionsOpened(stats.connections_opened - counted_.connections_opened);
    metrics_.AddReuseRefused(stats.reuse_refused - counted_.reuse_refused);
    metrics_.AddResendRefused(stats.resend_refused - counted_.resend_refused);
    metrics_.AddHeadersIgnored(stats.headers_ignored - counted_.headers_ignored);
    metrics_.AddLateEnds(observe::LateEnd::kSilent, stats.late_silent - counted_.late_silent);
    metrics_.AddLateEnds(observe::LateEnd::kLost, stats.late_lost - counted_.late_lost);
    metrics_.AddLateEnds(observe::LateEnd::kGaveWay, stats.late_gave_way - counted_.late_gave_way);
    metrics_.AddLateExchanges(static_cast<int64_t>(stats.late_now) - static_cast<int64_t>(counted_.late_now));
    // Only when there is a newer one, so that a shard with an older connection does not take it back.
    if (stats.connections_opened > counted_.connections_opened) {
      metrics_.tls().SetEnd(observe::Ending::kAstra, stats.peer_end);
    }
    counted_ = stats;
  });
}

void ShardParts::Drain() {
  shard_->Post([this] { creations_->Drain(); });
}

void ShardParts::AnswerAll() {
  shard_->Post([this] { creations_->AnswerAll(); });
}

}  // namespace userintent
