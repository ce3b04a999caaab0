#include "server/app/server.h"

#include <curl/curl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/admin/admin_server.h"
#include "server/app/telemetry.h"
#include "server/astra/answer.h"
#include "server/astra/credentials.h"
#include "server/astra/rest_client.h"
#include "server/base/crash_point.h"
#include "server/base/process.h"
#include "server/base/secret_file.h"
#include "server/http/ca_file.h"
#include "server/http/curl_client.h"
#include "server/http/new_client.h"
#include "server/ledger/memory_ledger.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/observe/http_endpoint.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/health_door.h"
#include "server/rpc/health_service.h"
#include "server/rpc/healthcheck.h"
#include "server/rpc/listener.h"
#include "server/rpc/methods.h"
#include "server/rpc/port_probe.h"
#include "server/rpc/reflection.h"
#include "server/rpc/tls_watch.h"

namespace userintent {
namespace {

using observe::Level;
using observe::Log;
using observe::SafeText;

constexpr auto kSecretPollInterval = std::chrono::seconds(2);
constexpr auto kStatsInterval = std::chrono::seconds(1);
constexpr char kNoServer[] = "--listen: libgrpc does not start its server";

http::Options HttpOptions(const config::Settings& settings, int shards, const http::CaFile* authorities) {
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
  options.max_connections = std::max(1, settings.upstream_connections / shards);
  return options;
}

// Measured, a connection costs 16 KiB before its TLS handshake and 85 KiB afterwards, so the default keeps within a
// container of 256 MiB. Whatever is asked for, descriptors are left over for the ledger, Astra and the rest.
rpc::AcceptorOptions AcceptorOptionsFor(const config::Settings& settings) {
  constexpr int kDefaultPlaces = 2000;
  const auto limit = static_cast<int>(std::min<rlim_t>(RaiseDescriptorLimit(), 1 << 24));
  const int others = settings.upstream_connections + 128;
  const int possible = std::max(limit / 4, limit - others);
  rpc::AcceptorOptions options;
  options.host = settings.listen.host;
  options.port = settings.listen.port;
  options.max_connections =
      std::min(settings.max_connections == 0 ? kDefaultPlaces : settings.max_connections, possible);
  // On loopback every caller, a mesh's proxy above all, has the one address.
  const int fair = settings.listen.loopback() ? options.max_connections : std::max(1, options.max_connections / 2);
  options.max_per_address = settings.max_connections_per_address == 0 ? fair : settings.max_connections_per_address;
  return options;
}

struct OpenedLedger {
  std::unique_ptr<ledger::Ledger> ledger;
  std::unique_ptr<intent::Fingerprinter> fingerprinter;
  ledger::SqliteLedger* sqlite = nullptr;  // the same ledger, where it is one
};

// What of a ledger's life an operator must not overlook.
void TellOfLedger(const std::string& path, const ledger::SqliteLedger& ledger, observe::Metrics& metrics) {
  metrics.SetLedgerRows(ledger.rows());
  metrics.SetLedgerMadeAt(ledger.made_at());
  if (ledger.made()) {
    const std::string text =
        absl::StrCat("ledger ", path,
                     ": is new and knows no request; right at the first start only. From the second "
                     "one on, --ledger_must_exist keeps a lost ledger from being replaced by an empty one");
    Log(Level::kWarn, "new_ledger", {{"warning", SafeText(text)}});
  }
  if (const std::optional<ledger::Restored>& restored = ledger.restored()) {
    metrics.SetLedgerRestored(absl::FromUnixMicros(restored->backup_of));
    const std::string text =
        absl::StrCat("ledger ", path, ": is a backup of ", ledger::TimeText(restored->backup_of),
                     " in the place of one that served until ", ledger::TimeText(restored->served_until),
                     "; what was sent after the backup is not in it, and a repeat of it would be "
                     "sent again");
    Log(Level::kWarn, "restored_ledger", {{"warning", SafeText(text)}});
  }
}

absl::StatusOr<OpenedLedger> OpenLedger(const config::Settings& settings, const config::LedgerKeys& keys,
                                        observe::Metrics& metrics) {
  auto fingerprinter = std::make_unique<intent::Fingerprinter>(keys.current, keys.previous);
  const ledger::WaiterLimits waiters{static_cast<size_t>(settings.max_waiters_per_request),
                                     static_cast<size_t>(settings.max_waiters_per_caller)};
  if (settings.ledger.kind == config::LedgerLocation::Kind::kMemory) {
    return OpenedLedger{std::make_unique<ledger::MemoryLedger>(waiters), std::move(fingerprinter), nullptr};
  }
  ledger::SqliteLedgerOptions options;
  options.store.path = settings.ledger.path;
  options.store.key_id = fingerprinter->key_id();
  options.store.previous_key_ids = fingerprinter->previous_key_ids();
  options.store.crash_point = CrashHook::Get();
  options.unknown_reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  options.waiters = waiters;
  options.retention = settings.retention;
  options.must_exist = settings.ledger_must_exist;
  options.restored = settings.ledger_restored;
  options.on_purge = [&metrics](size_t rows) { metrics.CountPurged(static_cast<int64_t>(rows)); };
  options.warn = [](const std::string& text) { Log(Level::kError, "ledger", {{"warning", SafeText(text)}}); };
  options.on_batch = [&metrics](const ledger::BatchReport& report) {
    metrics.RecordCommit(static_cast<int>(report.operations), report.took);
    if (!report.committed) metrics.CountCommitFailure();
    metrics.SetLedgerUncommitted(static_cast<int64_t>(report.waiting_outcomes));
  };
  auto opened = ledger::SqliteLedger::Open(std::move(options));
  if (!opened.ok()) {
    return absl::Status(opened.status().code(), absl::StrCat("--ledger: ", opened.status().message()));
  }
  // A call pays for each key, so one that nothing is found under any more is left out.
  ledger::SqliteLedger* const sqlite = opened->get();
  TellOfLedger(settings.ledger.path, *sqlite, metrics);
  std::vector<Secret> needed;
  for (size_t i = 0; i < keys.previous.size(); ++i) {
    if (sqlite->needs_key(fingerprinter->previous_key_ids()[i])) needed.push_back(keys.previous[i]);
  }
  return OpenedLedger{*std::move(opened), std::make_unique<intent::Fingerprinter>(keys.current, needed), sqlite};
}

rpc::TlsMaterial TlsMaterialOf(config::TlsMaterial tls) {
  return {std::move(tls.chain.pem), std::move(tls.private_key), std::move(tls.client_authorities.pem)};
}

}  // namespace

// One shard with what belongs to its thread. Destroyed in reverse: the calls' services, the shard with its calls, then
// the clients that they used.
struct ShardParts {
  std::unique_ptr<http::Client> http;
  std::unique_ptr<astra::Client> astra;
  std::unique_ptr<rpc::Shard> shard;
  std::unique_ptr<usecase::Creations> creations;
  std::unique_ptr<rpc::MethodContext> context;
  std::vector<std::unique_ptr<rpc::PostedMethod>> methods;
  std::unique_ptr<rpc::HealthCalls> health;
  http::Stats counted;  // what of the client's statistics is in the metrics; the shard's thread only
};

struct Server::Parts {
  config::Settings settings;
  std::unique_ptr<observe::Metrics> metrics;
  std::unique_ptr<Telemetry> telemetry;
  std::unique_ptr<astra::Credentials> credentials;
  std::unique_ptr<http::CaFile> authorities;  // null: the system's
  std::unique_ptr<intent::Fingerprinter> fingerprinter;
  std::unique_ptr<usecase::AdmissionControl> gate;
  std::unique_ptr<rpc::AsyncService> service;
  rpc::HealthService health_service;
  rpc::HealthState health;
  std::vector<ShardParts> shards;
  ledger::SqliteLedger* sqlite = nullptr;  // the ledger, where it is one
  std::unique_ptr<ledger::Ledger> ledger;  // after the shards: its last answers need their inboxes
  std::unique_ptr<admin::AdminServer> admin;
  std::unique_ptr<grpc::Service> reflection;
  std::unique_ptr<grpc::Server> grpc;
  std::unique_ptr<rpc::Acceptor> acceptor;  // hands to grpc, so it stops first
  rpc::Refusals refused;                    // what is in the metrics, as the next one
  uint64_t refused_handshakes = 0;
  std::unique_ptr<rpc::PortProbe> probe;
  std::unique_ptr<rpc::HealthDoor> door;
  std::unique_ptr<observe::HttpEndpoint> endpoint;
  std::optional<bool> serving;
  SteadyTime next_secret_poll{};
  SteadyTime next_stats{};
};

// Empty, or why new calls should go elsewhere, in words for whoever asks.
std::string Server::WhyNotServing(const Parts& p) {
  if (p.gate->draining()) return "it drains";
  if (!p.ledger->Writable()) return "the ledger cannot be written";
  if (p.probe && !p.probe->alive()) return "its port does not answer";
  return {};
}

// What looks at the running server from outside: its own connections to the port, and the door of --healthcheck.
void Server::OpenProbes(Parts& p, const config::HostPort& bound) {
  rpc::PortProbeOptions probe;
  probe.host = bound.host;
  probe.port = bound.port;
  probe.tls = p.settings.tls();
  probe.announce = [&acceptor = *p.acceptor](uint16_t port) { acceptor.ExpectProbeFrom(port); };
  p.probe = std::make_unique<rpc::PortProbe>(std::move(probe));
  auto door = rpc::HealthDoor::Open(bound.Text(), [&p] {
    std::string why = WhyNotServing(p);
    return why.empty() ? rpc::HealthDoor::kServing : why;
  });
  if (door.ok()) {
    p.door = *std::move(door);
  } else {
    const std::string text = absl::StrCat(std::string(door.status().message()), "; --healthcheck has to call the port");
    Log(Level::kWarn, "warning", {{"warning", SafeText(text)}});
  }
}

void Server::CountConnections(Parts& p) {
  using observe::RefusedConnection;
  const rpc::Refusals now = p.acceptor->refusals();
  const rpc::Refusals before = std::exchange(p.refused, now);
  const uint64_t handshakes = rpc::RefusedHandshakes();
  p.metrics->SetConnections(p.acceptor->connections());
  p.metrics->SetPortAnswers(p.probe->alive());
  p.metrics->AddRefusedConnections(RefusedConnection::kFull, now.full - before.full);
  p.metrics->AddRefusedConnections(RefusedConnection::kAddressFull, now.address_full - before.address_full);
  p.metrics->AddRefusedConnections(RefusedConnection::kNoDescriptor, now.no_descriptor - before.no_descriptor);
  p.metrics->AddRefusedConnections(RefusedConnection::kTls,
                                   handshakes - std::exchange(p.refused_handshakes, handshakes));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(config::Loaded loaded) {
  const std::vector<std::string> warnings = config::Warnings(loaded);
  auto parts = std::make_unique<Parts>();
  Parts& p = *parts;
  p.settings = loaded.settings;
  const config::Settings& settings = p.settings;

  static const std::string grpc_version = grpc::Version();  // the release; libgrpc's own number counts otherwise
  static const std::string curl_version = curl_version_info(CURLVERSION_NOW)->version;
  p.metrics = std::make_unique<observe::Metrics>(
      observe::BuildInfo{config::ProgramVersion(), grpc_version, curl_version, sqlite3_libversion()},
      Telemetry::Labels());
  p.telemetry = std::make_unique<Telemetry>(*p.metrics);

  if (absl::Status status = http::CurlGlobalInit(); !status.ok()) return status;
  p.credentials = std::move(loaded.credentials);
  p.authorities = std::move(loaded.authorities);

  auto opened = OpenLedger(settings, loaded.ledger_keys, *p.metrics);
  if (!opened.ok()) return opened.status();
  p.ledger = std::move(opened->ledger);
  p.fingerprinter = std::move(opened->fingerprinter);
  p.sqlite = opened->sqlite;
  const size_t recovered = opened->sqlite != nullptr ? opened->sqlite->recovered() : 0;
  p.metrics->SetRecoveredRows(static_cast<int64_t>(recovered));

  usecase::AdmissionControl::Options gate;
  gate.max_in_flight = settings.max_in_flight;
  gate.min_deadline = absl::ToChronoMilliseconds(settings.min_deadline);
  p.gate = std::make_unique<usecase::AdmissionControl>(gate);

  // The listener. Every shard brings its own completion queue.
  if (settings.reflection_on()) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  rpc::ConfigureBuilder(builder, settings.reflection_on());
  std::shared_ptr<grpc::ServerCredentials> listen_credentials = grpc::InsecureServerCredentials();
  const bool mutual_tls = loaded.tls.has_value();
  if (mutual_tls) {
    listen_credentials = rpc::MutualTls(TlsMaterialOf(*std::move(loaded.tls)));
  }
  auto acceptor = rpc::Acceptor::Listen(AcceptorOptionsFor(settings));
  if (!acceptor.ok()) {
    return absl::UnavailableError(
        absl::StrCat("--listen: cannot listen on ", settings.listen.Text(), ": is the port in use?"));
  }
  p.acceptor = *std::move(acceptor);
  const uint16_t port = p.acceptor->port();
  auto sink = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, listen_credentials);
  p.service = std::make_unique<rpc::AsyncService>();
  builder.RegisterService(p.service.get());
  builder.RegisterService(&p.health_service);
  if (settings.reflection_on()) {
    p.reflection = rpc::NewReflectionService();
    builder.RegisterService(p.reflection.get());
  }

  const int shards = settings.shard_count();
  http::Options http_options = HttpOptions(settings, shards, p.authorities.get());
  http_options.http1_period = std::make_shared<http::Http1Period>();  // what one shard learns, all know
  for (int i = 0; i < shards; ++i) {
    ShardParts s;
    s.http = http::NewClient(http_options);
    if (!s.http) return absl::ResourceExhaustedError("out of file descriptors or memory at the start");
    s.astra = astra::NewRestClient(*s.http, *p.credentials, settings.astra_limit_error,
                                   "userintent-server/" + std::string(config::ProgramVersion()));
    s.shard = std::make_unique<rpc::Shard>(builder.AddCompletionQueue(), *s.http);
    s.creations = std::make_unique<usecase::Creations>(usecase::Creations::Dependencies{
        *s.shard, *p.ledger, *s.astra, *p.gate, *p.fingerprinter, *p.telemetry,
        intent::RulesOptions{settings.kyc_delegation, settings.allow_non_public_ip}, settings.email_attempt_limit});
    s.context = std::make_unique<rpc::MethodContext>(
        rpc::MethodContext{*s.shard, *p.telemetry, mutual_tls, absl::ToChronoNanoseconds(settings.default_deadline)});
    s.methods = rpc::NewMethods(*p.service, *s.context,
                                rpc::UseCases{*s.creations, *p.ledger, *s.shard, settings.email_attempt_limit});
    s.health = std::make_unique<rpc::HealthCalls>(p.health_service, p.health, *s.shard);
    p.shards.push_back(std::move(s));
  }
  {
    const rpc::TlsContextScope scope;
    p.grpc = builder.BuildAndStart();
  }
  auto server = std::unique_ptr<Server>(new Server(std::move(parts)));
  if (!p.grpc) return absl::InternalError(kNoServer);
  for (ShardParts& s : p.shards) {
    s.shard->Start([&s] {
      for (const auto& method : s.methods) method->Post();
      s.health->Start();
    });
  }
  p.acceptor->Start(std::move(sink));
  const config::HostPort bound{settings.listen.host, port};
  OpenProbes(p, bound);

  if (opened->sqlite != nullptr) {
    auto admin = admin::AdminServer::Start(*opened->sqlite, *p.fingerprinter, settings.ledger.path);
    if (admin.ok()) {
      p.admin = *std::move(admin);
    } else {
      const std::string text =
          absl::StrCat(std::string(admin.status().message()), "; userintent-ledger works only while no server runs");
      Log(Level::kWarn, "warning", {{"warning", SafeText(text)}});
    }
  }

  if (!settings.metrics_listen.empty()) {
    observe::HttpEndpoint::Options endpoint;
    endpoint.host = settings.metrics_listen.host;
    endpoint.port = settings.metrics_listen.port;
    endpoint.metrics = [&p] { return p.metrics->Text(); };
    endpoint.ready = [&p] { return WhyNotServing(p).empty(); };
    endpoint.alive = [&p] { return p.probe->alive(); };
    auto started = observe::HttpEndpoint::Start(std::move(endpoint));
    if (!started.ok()) {
      return absl::UnavailableError(
          absl::StrCat("--metrics_listen: cannot listen on ", settings.metrics_listen.Text(), ": is the port in use?"));
    }
    p.endpoint = *std::move(started);
  }

  for (const std::string& warning : warnings) Log(Level::kWarn, "warning", {{"warning", SafeText(warning)}});
  server->HouseKeep();
  Log(Level::kInfo, "listening",
      {{"address", SafeText(bound.Text())},
       {"tls", mutual_tls},
       {"origin", SafeText(settings.astra_base_url.Text())},
       {"shards", shards},
       {"recovered", recovered},
       {"version", SafeText(config::ProgramVersion())}});
  if (p.endpoint) {
    Log(Level::kInfo, "metrics_listening",
        {{"address", SafeText(config::HostPort{settings.metrics_listen.host, p.endpoint->port()}.Text())}});
  }
  return server;
}

Server::~Server() {
  Parts& p = *parts_;
  p.endpoint.reset();
  p.door.reset();
  p.probe.reset();
  if (p.acceptor) p.acceptor->Stop();
  p.admin.reset();
  if (p.grpc) {
    p.grpc->Shutdown(std::chrono::system_clock::now());
    p.grpc->Wait();
  }
  for (ShardParts& s : p.shards) s.shard->Stop();
}

void Server::RefreshFiles(Parts& p) {
  // At once for a file that was not refused before, and as a reminder while it stays as it is.
  const auto note = [&p](const absl::StatusOr<bool>& changed, bool news, observe::LogLimiter& limiter,
                         observe::Event reloaded, observe::Event refused) {
    if (!changed.ok()) {
      const auto held = limiter.Allow();
      if (held || news) {
        Log(Level::kError, refused,
            {{"error", SafeText(std::string(changed.status().message()))}, {"suppressed", held.value_or(0)}});
      }
      p.metrics->CountCredentialReload(false);
    } else if (*changed) {
      Log(Level::kInfo, reloaded);
      p.metrics->CountCredentialReload(true);
    }
  };
  static observe::LogLimiter credentials_limiter(std::chrono::minutes(1));
  const absl::StatusOr<bool> credentials = p.credentials->Refresh();
  note(credentials, p.credentials->RefusalIsNews(), credentials_limiter, observe::Event("credentials_reloaded"),
       observe::Event("credentials_not_reloaded"));
  if (!p.authorities) return;
  static observe::LogLimiter authorities_limiter(std::chrono::minutes(1));
  const absl::StatusOr<bool> authorities = p.authorities->Refresh();
  note(authorities, p.authorities->RefusalIsNews(), authorities_limiter, observe::Event("astra_ca_reloaded"),
       observe::Event("astra_ca_not_reloaded"));
}

void Server::HouseKeep() {
  Parts& p = *parts_;
  const bool serving = p.ledger->Writable() && !p.gate->draining();
  if (p.serving != serving) {
    p.serving = serving;
    p.health.Set(serving);
    for (ShardParts& s : p.shards) s.shard->Post([health = s.health.get()] { health->Announce(); });
    p.metrics->SetDraining(p.gate->draining());
    p.metrics->SetLedgerWritable(p.ledger->Writable());
  }

  const SteadyTime now = SteadyClock::now();
  if (now >= p.next_stats) {
    p.next_stats = now + kStatsInterval;
    CountConnections(p);
    if (p.sqlite != nullptr) {
      p.metrics->SetLedgerRows(p.sqlite->rows());
      p.metrics->SetLedgerInPlace(p.sqlite->InPlace());
    }
    for (ShardParts& s : p.shards) {
      s.shard->Post([&s, &metrics = *p.metrics] {
        const http::Stats& stats = s.http->stats();
        metrics.AddConnectionsOpened(stats.connections_opened - s.counted.connections_opened);
        metrics.AddReuseRefused(stats.reuse_refused - s.counted.reuse_refused);
        metrics.AddResendRefused(stats.resend_refused - s.counted.resend_refused);
        metrics.AddHeadersIgnored(stats.headers_ignored - s.counted.headers_ignored);
        s.counted = stats;
      });
    }
  }
  if (now < p.next_secret_poll) return;
  const bool first = p.next_secret_poll == SteadyTime{};
  p.next_secret_poll = now + kSecretPollInterval;
  if (!first) RefreshFiles(p);
}

void Server::ReloadFiles() {
  Log(Level::kInfo, "reload", {{"signal", SafeText("SIGHUP")}});
  RefreshFiles(*parts_);
}

bool Server::Drain() {
  Parts& p = *parts_;
  Log(Level::kInfo, "draining", {{"in_flight", p.gate->in_flight()}});
  p.gate->Drain();
  for (ShardParts& s : p.shards) {
    s.shard->Post([creations = s.creations.get()] { creations->Drain(); });
  }
  HouseKeep();
  const SteadyTime end = SteadyClock::now() + absl::ToChronoNanoseconds(p.settings.drain_timeout);
  while (p.gate->in_flight() > 0 && SteadyClock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    HouseKeep();
  }
  const int left = p.gate->in_flight();
  // Everything is recorded, or its time is up: whoever waits is answered, and only replies are on their way out.
  for (ShardParts& s : p.shards) {
    s.shard->Post([creations = s.creations.get()] { creations->AnswerAll(); });
  }
  p.probe->Stop();
  p.acceptor->Stop();
  p.grpc->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
  Log(left == 0 ? Level::kInfo : Level::kError, "drained", {{"in_flight", left}});
  return left == 0;
}

absl::Status ProbeHealth(const config::Settings& settings) {
  // The server's own door, which needs no certificate. A server on every address has it under that name, whichever
  // address of the machine is given here.
  std::vector<std::string> hosts{settings.listen.host, "0.0.0.0", "::"};
  if (settings.listen.host == "127.0.0.1" || settings.listen.host == "::1") hosts.push_back("localhost");
  if (settings.listen.host == "localhost") hosts.push_back("127.0.0.1");
  for (const std::string& host : hosts) {
    const absl::Status status =
        rpc::HealthDoor::Ask(config::HostPort{host, settings.listen.port}.Text(), std::chrono::seconds(3));
    if (!absl::IsNotFound(status)) return status;
  }
  // None: nothing runs here, or in another network name space. The port itself tells.
  std::optional<rpc::TlsMaterial> tls;
  if (settings.tls()) {
    auto loaded = config::LoadTls(settings);
    if (!loaded.ok()) return loaded.status();
    if (*loaded) tls = TlsMaterialOf(**std::move(loaded));
  }
  // A server on every address is asked on loopback.
  config::HostPort target = settings.listen;
  if (target.host == "0.0.0.0") target.host = "127.0.0.1";
  if (target.host == "::") target.host = "::1";
  return rpc::CheckHealth(target.Text(), tls ? &*tls : nullptr, absl::Seconds(3));
}

}  // namespace userintent
