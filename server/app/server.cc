#include "server/app/server.h"

#include <curl/curl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/admin/admin_server.h"
#include "server/app/acceptor_options.h"
#include "server/app/breaker.h"
#include "server/app/connection_counts.h"
#include "server/app/file_reloader.h"
#include "server/app/open_ledger.h"
#include "server/app/policy_watch.h"
#include "server/app/shard_parts.h"
#include "server/app/side_doors.h"
#include "server/app/telemetry.h"
#include "server/app/tls_counts.h"
#include "server/app/unresolved_count.h"
#include "server/app/watched_files.h"
#include "server/app/webhooks.h"
#include "server/http/curl_global.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/health_service.h"
#include "server/rpc/listener.h"
#include "server/rpc/methods.h"
#include "server/rpc/reflection.h"
#include "server/rpc/tls_watch.h"
#include "server/usecase/change_fanout.h"
#include "server/usecase/follow_up.h"

namespace userintent {
namespace {

// In this file: the parts; the steps of a start, in the order of events; the end; what is done in between.

using observe::Level;
using observe::Log;
using observe::SafeText;

constexpr auto kStatsInterval = std::chrono::seconds(1);
constexpr auto kLameDuckTurn = std::chrono::milliseconds(100);

observe::BuildInfo Build() {
  static const std::string grpc_version = grpc::Version();  // the release; libgrpc's own number counts otherwise
  static const std::string curl_version = curl_version_info(CURLVERSION_NOW)->version;
  return {config::ProgramVersion(), grpc_version, curl_version, sqlite3_libversion()};
}

}  // namespace

// Destroyed in reverse. The functions are the steps of Start.
struct Server::Parts {
  void Observe();
  absl::Status OpenLedger(const config::LedgerKeys& keys);
  void WatchFiles(config::Loaded& loaded);
  void OpenAdmission();
  absl::Status Listen();
  absl::Status Build();
  void Serve();
  absl::Status OpenWebhooks();
  absl::Status OpenSideDoors();
  void OpenOperatorsSocket();
  void Announce(const std::vector<std::string>& warnings) const;

  absl::Status MakeShards(grpc::ServerBuilder& builder);
  void CountConnections();

  config::Settings settings;
  std::unique_ptr<observe::Metrics> metrics;
  std::unique_ptr<Telemetry> telemetry;
  WatchedFiles watched;
  std::unique_ptr<FileReloader> files;
  policy::Gatekeeper gatekeeper;
  std::unique_ptr<PolicyWatch> policy;
  std::unique_ptr<intent::Fingerprinter> fingerprinter;
  std::unique_ptr<Breaker> breaker;
  std::unique_ptr<usecase::AdmissionControl> admission;
  std::unique_ptr<usecase::IntentReads> reads;
  usecase::ChangeFanout change_listeners;        // of the ledger
  std::unique_ptr<usecase::FollowUp> follow_up;  // on the first shard
  std::unique_ptr<usecase::WatchTokens> watch_tokens;
  std::unique_ptr<usecase::WatchHub> watch_hub;  // hears of the ledger's changes
  std::unique_ptr<rpc::AsyncService> service;
  rpc::HealthService health_service;
  rpc::HealthState health;
  std::vector<std::unique_ptr<ShardParts>> shards;
  std::unique_ptr<Webhooks> webhooks;  // null: none are received; hears the ledger's last answers, as the shards do
  ledger::WebhookQueue* webhook_queue = nullptr;
  ledger::SqliteLedger* sqlite = nullptr;  // the ledger, where it is one
  postgres::Ledger* postgres = nullptr;    // likewise
  ledger::ChangeFeed* changes = nullptr;   // the ledger's
  std::unique_ptr<ledger::Ledger> ledger;  // after the shards: its last answers need their inboxes
  std::unique_ptr<admin::AdminServer> admin;
  std::unique_ptr<grpc::Service> reflection;
  std::unique_ptr<grpc::Server> grpc;
  std::unique_ptr<rpc::Acceptor> acceptor;                                      // hands to grpc, so it stops first
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;  // from Build to Serve
  std::unique_ptr<SideDoors> doors;
  net::HostPort bound;
  ConnectionCounts counts;
  std::unique_ptr<TlsCounts> tls_counts;
  std::unique_ptr<UnresolvedCount> unresolved;
  std::optional<bool> serving;       // what was announced last
  std::atomic<bool> leaving{false};  // from the order to stop on
  SteadyTime next_stats{};
};

Server::Server() : parts_(std::make_unique<Parts>()) {}

// ---- the start

absl::StatusOr<std::unique_ptr<Server>> Server::Start(config::Loaded loaded) {
  const std::vector<std::string> warnings = config::Warnings(loaded);
  std::unique_ptr<Server> server(new Server);  // stops what runs where a step fails
  Parts& p = *server->parts_;
  p.settings = std::move(loaded.settings);
  if (absl::Status status = http::CurlGlobalInit(); !status.ok()) return status;
  p.Observe();
  p.WatchFiles(loaded);
  if (absl::Status status = p.OpenLedger(loaded.ledger_keys); !status.ok()) return status;
  p.OpenAdmission();
  if (absl::Status status = p.Listen(); !status.ok()) return status;
  if (absl::Status status = p.Build(); !status.ok()) return status;
  p.Serve();
  if (absl::Status status = p.OpenWebhooks(); !status.ok()) return status;
  if (absl::Status status = p.OpenSideDoors(); !status.ok()) return status;
  p.OpenOperatorsSocket();
  server->HouseKeep();
  p.Announce(warnings);
  return server;
}

void Server::Parts::Observe() {
  metrics = std::make_unique<observe::Metrics>(userintent::Build(), Telemetry::Labels());
  telemetry = std::make_unique<Telemetry>(*metrics, settings);
}

void Server::Parts::WatchFiles(config::Loaded& loaded) {
  watched = WatchedFiles(loaded);
  policy = std::make_unique<PolicyWatch>(std::move(loaded.policy), gatekeeper, *metrics);
  files = std::make_unique<FileReloader>(*metrics);
  watched.Watch(*files);
  files->Also([this] { policy->Refresh(); });
}

absl::Status Server::Parts::OpenLedger(const config::LedgerKeys& keys) {
  absl::StatusOr<OpenedLedger> opened = userintent::OpenLedger(settings, keys, *metrics);
  if (!opened.ok()) return opened.status();
  ledger = std::move(opened->ledger);
  changes = opened->changes;
  changes->SetListener(&change_listeners);
  watch_tokens = std::move(opened->watch_tokens);
  watch_hub = std::make_unique<usecase::WatchHub>(
      *changes, usecase::WatchHub::Limits{static_cast<size_t>(settings.watch_streams),
                                          static_cast<size_t>(settings.watch_streams_per_caller)});
  change_listeners.Add(*watch_hub);
  fingerprinter = std::move(opened->fingerprinter);
  sqlite = opened->sqlite;
  postgres = opened->postgres;
  webhook_queue = opened->webhooks;
  metrics->SetRecoveredRows(sqlite != nullptr ? static_cast<int64_t>(sqlite->recovered()) : 0);
  return absl::OkStatus();
}

void Server::Parts::OpenAdmission() {
  usecase::AdmissionControl::Options options = AdmissionOptionsOf(settings);
  breaker = std::make_unique<Breaker>(settings.upstream_breaker, *watched.credentials, *files, *telemetry);
  options.breaker = breaker->get();
  admission = std::make_unique<usecase::AdmissionControl>(options);
  reads = std::make_unique<usecase::IntentReads>(*ledger, *admission, *telemetry, settings.astra_read_rate);
}

// Binds the port. Connections wait in its queue until Serve.
absl::Status Server::Parts::Listen() {
  auto listening = rpc::Acceptor::Listen(AcceptorOptionsFor(settings));
  if (!listening.ok()) {
    return absl::UnavailableError(
        absl::StrCat("--listen: cannot listen on ", settings.listen.Text(), ": is the port in use?"));
  }
  acceptor = *std::move(listening);
  tls_counts = std::make_unique<TlsCounts>(watched, *metrics);
  bound = {settings.listen.host, acceptor->port()};
  return absl::OkStatus();
}

absl::Status Server::Parts::Build() {
  if (settings.reflection_on()) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  rpc::ConfigureBuilder(builder, settings.reflection_on(), absl::ToChronoMilliseconds(settings.max_connection_age));
  connections = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      watched.tls ? rpc::MutualTls(watched.tls) : grpc::InsecureServerCredentials());
  service = std::make_unique<rpc::AsyncService>();
  builder.RegisterService(service.get());
  builder.RegisterService(&health_service);
  if (settings.reflection_on()) {
    reflection = rpc::NewReflectionService();
    if (reflection) builder.RegisterService(reflection.get());
  }
  if (absl::Status status = MakeShards(builder); !status.ok()) return status;
  const rpc::TlsContextScope scope(watched.tls);
  grpc = builder.BuildAndStart();
  return grpc ? absl::OkStatus() : absl::InternalError("--listen: libgrpc does not start its server");
}

// Every shard brings its own completion queue.
absl::Status Server::Parts::MakeShards(grpc::ServerBuilder& builder) {
  const http::Options http = HttpOptionsOf(settings, watched.authorities.get());
  const SharedParts shared{settings,       http,           watched.tls, *watched.credentials, *ledger,       *admission,
                           *reads,         *fingerprinter, *telemetry,  *telemetry,           *metrics,      *service,
                           health_service, health,         *changes,    *watch_hub,           *watch_tokens, *telemetry,
                           gatekeeper};
  for (int i = 0; i < settings.shard_count(); ++i) {
    absl::StatusOr<std::unique_ptr<ShardParts>> shard = ShardParts::Create(shared, builder);
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
  }
  unresolved = std::make_unique<UnresolvedCount>(*ledger, shards.front()->read_shard().loop, *metrics);
  follow_up = std::make_unique<usecase::FollowUp>(
      usecase::FollowUp::Dependencies{
          *ledger, *reads, shards.front()->read_shard(),
          [this](const std::string& caller, const Uuid& request_id) { return watch_hub->Watched(caller, request_id); }},
      usecase::FollowUp::Options{.follow_up = settings.follow_up});
  change_listeners.Add(*follow_up);
  breaker->ProbeOn(shards.front()->read_shard(), *reads);
  watch_hub->SetFollower(follow_up.get());
  return absl::OkStatus();
}

void Server::Parts::Serve() {
  for (const auto& shard : shards) shard->Start();
  policy->OnChange([this] {
    for (const auto& shard : shards) shard->AnnouncePolicy();
  });
  shards.front()->read_shard().loop.Post([this] { follow_up->Start(); });
  acceptor->Start(std::move(connections));
}

absl::Status Server::Parts::OpenWebhooks() {
  if (!watched.webhook_keys) return absl::OkStatus();
  auto opened =
      Webhooks::Open(settings, *watched.webhook_keys, watched.webhook_tls.get(),
                     {shards.front()->read_shard(), *ledger, *webhook_queue, *reads, *admission, *telemetry, *metrics});
  if (!opened.ok()) return opened.status();
  webhooks = *std::move(opened);
  return absl::OkStatus();
}

absl::Status Server::Parts::OpenSideDoors() {
  auto opened = SideDoors::Open(bound, *acceptor,
                                {*grpc, settings, *admission, leaving, *ledger, *metrics, webhooks.get(), sqlite});
  if (!opened.ok()) return opened.status();
  doors = *std::move(opened);
  return absl::OkStatus();
}

void Server::Parts::OpenOperatorsSocket() {
  if (sqlite == nullptr) return;
  auto started = admin::AdminServer::Start(*sqlite, *fingerprinter, *telemetry, settings.ledger.path);
  if (started.ok()) {
    admin = *std::move(started);
    return;
  }
  const std::string text =
      absl::StrCat(std::string(started.status().message()), "; userintent-ledger works only while no server runs");
  Log(Level::kWarn, "warning", {{"warning", SafeText(text)}});
}

void Server::Parts::Announce(const std::vector<std::string>& warnings) const {
  for (const std::string& warning : warnings) Log(Level::kWarn, "warning", {{"warning", SafeText(warning)}});
  Log(Level::kInfo, "listening",
      {{"address", SafeText(bound.Text())},
       {"tls", settings.tls()},
       {"origin", SafeText(settings.astra_base_url.Text())},
       {"shards", settings.shard_count()},
       {"recovered", sqlite != nullptr ? sqlite->recovered() : 0},
       {"version", SafeText(config::ProgramVersion())}});
  policy->Announce();
  const net::HostPort where = doors->metrics_address();
  if (!where.empty()) Log(Level::kInfo, "metrics_listening", {{"address", SafeText(where.Text())}});
  if (webhooks) Log(Level::kInfo, "webhook_listening", {{"address", SafeText(webhooks->address().Text())}});
}

// ---- the end

Server::~Server() {
  Parts& p = *parts_;
  p.doors.reset();
  if (p.webhooks) p.webhooks->Stop();
  if (p.acceptor) p.acceptor->Stop();
  p.admin.reset();
  if (p.grpc) {
    p.grpc->Shutdown(std::chrono::system_clock::now());
    p.grpc->Wait();
  }
  for (const auto& shard : p.shards) shard->Stop();
}

// Calls are admitted as before, while health sends new ones elsewhere.
void Server::LameDuck() {
  Parts& p = *parts_;
  p.leaving = true;
  HouseKeep();
  const absl::Duration time = p.settings.lame_duck_time();
  if (time <= absl::ZeroDuration()) return;
  Log(Level::kInfo, "lame_duck", {{"in_flight", p.admission->in_flight()}});
  const SteadyTime end = SteadyClock::now() + absl::ToChronoNanoseconds(time);
  for (SteadyTime now = SteadyClock::now(); now < end; now = SteadyClock::now()) {
    std::this_thread::sleep_for(std::min<SteadyClock::duration>(end - now, kLameDuckTurn));
    HouseKeep();
  }
}

bool Server::Drain() {
  Parts& p = *parts_;
  const SteadyTime end = SteadyClock::now() + absl::ToChronoNanoseconds(p.settings.drain_timeout);
  LameDuck();
  Log(Level::kInfo, "draining", {{"in_flight", p.admission->in_flight()}});
  p.admission->Drain();
  p.watch_hub->Drain();
  for (const auto& shard : p.shards) shard->Drain();
  p.shards.front()->read_shard().loop.Post([&p] { p.follow_up->Stop(); });
  p.breaker->StopProbing();
  HouseKeep();
  // Astra sends again what it cannot deliver now.
  if (p.webhooks) p.webhooks->Stop();
  while ((p.admission->in_flight() > 0 || p.reads->waiting() > 0) && SteadyClock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    HouseKeep();
  }
  const int left = p.admission->in_flight();
  // Everything is recorded, or its time is up: waiting callers are answered, and only replies are on their way out.
  for (const auto& shard : p.shards) shard->AnswerAll();
  p.reads->AnswerAll();
  p.doors->StopProbe();
  p.acceptor->Stop();
  p.grpc->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  Log(left == 0 ? Level::kInfo : Level::kError, "drained", {{"in_flight", left}});
  return left == 0;
}

// ---- in between

void Server::HouseKeep() {
  Parts& p = *parts_;
  const bool writable = p.ledger->Writable();
  const bool serving = writable && !p.leaving;
  p.metrics->SetDraining(p.leaving);
  p.metrics->SetLedgerWritable(writable);
  if (p.serving != serving) {
    p.serving = serving;
    p.health.Set(serving);
    for (const auto& shard : p.shards) shard->AnnounceHealth();
  }
  const SteadyTime now = SteadyClock::now();
  if (now >= p.next_stats) {
    p.next_stats = now + kStatsInterval;
    p.CountConnections();
    ShowLedger(p.sqlite, p.postgres, *p.metrics);
    p.unresolved->Look(now, absl::Now());
    for (const auto& shard : p.shards) shard->CountUpstream();
    p.policy->ShowAge(now);
    p.telemetry->ShowFollowUp(p.follow_up->stats());
    p.telemetry->ShowOverLimit(p.gatekeeper.over_limit());
    p.telemetry->ShowUpstream(p.admission->upstream());
  }
  p.files->Poll(now);
}

void Server::Parts::CountConnections() {
  counts.Count(*acceptor, *metrics);
  tls_counts->Count();
  metrics->SetPortAnswers(doors->port_answers());
}

void Server::ReloadFiles() {
  Log(Level::kInfo, "reload", {{"signal", SafeText("SIGHUP")}});
  parts_->files->ReloadNow();
}

net::HostPort Server::address() const { return parts_->bound; }
net::HostPort Server::metrics_address() const { return parts_->doors->metrics_address(); }

}  // namespace userintent
