// ShardParts: one shard with what belongs to its thread: its connections to Astra, and the calls that it serves.
//
// Made, started and stopped by server.cc on main's thread; the methods may be called from any thread.
#pragma once

#include <grpcpp/server_builder.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/astra/astra.h"
#include "server/astra/credentials.h"
#include "server/config/settings.h"
#include "server/http/client.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/ledger.h"
#include "server/observe/metrics.h"
#include "server/policy/access.h"
#include "server/rpc/health_service.h"
#include "server/rpc/methods.h"
#include "server/rpc/shard.h"
#include "server/tls/files.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/creations.h"

namespace userintent {

// How all shards speak to Astra. `authorities` null: the system's; otherwise it outlives the clients.
http::Options HttpOptionsOf(const config::Settings& settings, const http::CaFile* authorities);

// What lets creations begin, in all shards.
usecase::AdmissionControl::Options AdmissionOptionsOf(const config::Settings& settings);

// What the shards share; all of it outlives them.
struct SharedParts {
  const config::Settings& settings;
  const http::Options& http;
  const tls::Files& tls;  // null: the listener is in plaintext
  astra::Credentials& credentials;
  ledger::Ledger& ledger;
  usecase::AdmissionControl& admission;
  usecase::IntentReads& reads;
  const intent::Fingerprinter& fingerprinter;
  rpc::CallObserver& call_observer;
  usecase::CreationObserver& creation_observer;
  observe::Metrics& metrics;
  rpc::AsyncService& service;
  rpc::HealthService& health_service;
  const rpc::HealthState& health;
  ledger::ChangeFeed& changes;
  usecase::WatchHub& watch_hub;
  const usecase::WatchTokens& watch_tokens;
  usecase::WatchObserver& watch_observer;
  policy::Gatekeeper& gatekeeper;
};

class ShardParts {
 public:
  // Takes a completion queue of the builder's. The status says in one line why there is no shard.
  static absl::StatusOr<std::unique_ptr<ShardParts>> Create(const SharedParts& shared, grpc::ServerBuilder& builder);

  // After the server is built: posts the calls that wait for requests, and starts the thread.
  void Start();

  // After the server has shut down.
  void Stop() { shard_->Stop(); }

  // Where reads run that no caller has asked for.
  usecase::IntentReads::Shard read_shard() const { return {*shard_, *astra_}; }

  // Ends what the policy that is in force now does not allow any more.
  void AnnouncePolicy();
  // Tells those who watch the health, if there is news.
  void AnnounceHealth();
  // Adds to the metrics what the connections to Astra counted since the last time.
  void CountUpstream();
  // The process stops soon: no creation waits for another try any more.
  void Drain();
  // The process stops now: every caller is answered.
  void AnswerAll();

 private:
  ShardParts(observe::Metrics& metrics, policy::Gatekeeper& gatekeeper) : metrics_(metrics), gate_(gatekeeper) {}

  observe::Metrics& metrics_;
  policy::Gate gate_;
  // Destroyed in reverse: the methods with what they use, the shard with its calls, then the clients.
  std::unique_ptr<http::Client> http_;
  std::unique_ptr<astra::Client> astra_;
  std::unique_ptr<rpc::Shard> shard_;
  std::unique_ptr<usecase::Creations> creations_;
  std::unique_ptr<rpc::MethodContext> context_;
  std::vector<std::unique_ptr<rpc::PostedMethod>> methods_;
  std::unique_ptr<rpc::HealthCalls> health_;
  http::Stats counted_;  // what of the client's statistics is in the metrics; the shard's thread only
};

}  // namespace userintent
