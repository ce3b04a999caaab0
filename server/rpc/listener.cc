#include "server/rpc/listener.h"

#include <grpc/grpc.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>

#include <algorithm>
#include <chrono>

#include "server/rpc/frame_guard.h"
#include "server/rpc/methods.h"
#include "server/usecase/watch_stream.h"

namespace userintent::rpc {
namespace {

class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

constexpr int kReflectionThreads = 32;

// Arguments of a current libgrpc, by their text: 1.51 has no names for them and does not know them.
constexpr char kMaxPending[] = "grpc.server.max_pending_requests";
constexpr char kMaxPendingHard[] = "grpc.server.max_pending_requests_hard_limit";
constexpr char kOverloadProtection[] = "grpc.http.overload_protection";
constexpr int kMostPending = 8192;

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MutualTls(const tls::Files& tls) {
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  const auto own = tls.certificate->Snapshot();
  options.pem_root_certs = tls.authorities->Snapshot()->certificates.pem;
  options.pem_key_cert_pairs.push_back({std::string(own->key_pem.Reveal()), own->certificates.pem});
  return grpc::SslServerCredentials(options);
}

void ConfigureBuilder(grpc::ServerBuilder& builder, bool reflection, std::chrono::milliseconds max_age) {
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  // A message that is small on the wire and grows when it is unpacked costs whoever unpacks it, so compressed requests
  // are refused, and libgrpc is kept from unpacking them before it looks. Answers are never compressed.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  // A call with more ends all calls of its connection where the client is one of gRPC's C core (Python, C++), so only
  // absurd ones may meet it.
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // Without this two servers on one port start without a word.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Per connection; the calls of the whole process are limited by the gate.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  // A current libgrpc throws calls away before anybody has seen them: at random and with a bare CANCELLED where 1,000
  // of the whole process wait to be taken, and REFUSED_STREAM where a connection's calls that are over are not yet let
  // go of. With 5,000 honest calls at once these were a third of all. Here each connection and memory have bounds of
  // their own (frame_guard.h, memory_watch.h), and whoever is refused by the gate hears why.
  builder.AddChannelArgument(kMaxPending, kMostPending);
  builder.AddChannelArgument(kMaxPendingHard, kMostPending);
  builder.AddChannelArgument(kOverloadProtection, 0);
  // A peer that connects and stays silent is let go.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, static_cast<int>(kHandshakeTimeout.count()));
  // Callers behind a NAT may ping every 10 s, also when idle, without being thrown out for too many pings.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60 * 1000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20 * 1000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10 * 1000);
  // Nobody needs a connection on which nothing was asked for that long; the next call makes another.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 15 * 60 * 1000);
  // Callers look up the address again from time to time, which spreads them after a deployment, and show a certificate
  // that may have changed to authorities that may have changed.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, static_cast<int>(max_age.count()));
  // Calls that run when a connection has become old are left their time, the longest of all included: a stream ends by
  // itself before its connection does.
  constexpr auto kGrace = usecase::kLongestWatch + std::chrono::minutes(1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                             static_cast<int>(std::chrono::milliseconds(kGrace).count()));
  if (!reflection) {
    builder.SetOption(std::make_unique<WithoutReflection>());
  } else {
    // Reflection is what libgrpc serves with threads of its own, one for as long as a stream is held. Beyond these a
    // question is answered RESOURCE_EXHAUSTED; calls of the gateway need none of them.
    grpc::ResourceQuota quota("reflection");
    quota.SetMaxThreads(kReflectionThreads);
    builder.SetResourceQuota(quota);
    builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  }
}

}  // namespace userintent::rpc
