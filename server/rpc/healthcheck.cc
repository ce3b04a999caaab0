#include "server/rpc/healthcheck.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "grpc/health/v1/health.pb.h"

namespace userintent::rpc {
namespace {

// A name that the certificate was made for, so that the probe need not be called by it: its first DNS SAN.
std::string FirstDnsName(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                      BIO_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr),
                                                                X509_free);
  std::string name;
  if (!certificate) return name;
  auto* names =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && name.empty() && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* entry = sk_GENERAL_NAME_value(names, i);
    if (entry->type == GEN_DNS) {
      name.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(entry->d.dNSName)),
                  static_cast<size_t>(ASN1_STRING_length(entry->d.dNSName)));
    }
  }
  GENERAL_NAMES_free(names);
  return name;
}

// What the codes mean here that a probe meets. gRPC's own text may name files and addresses.
std::string InWords(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::UNAVAILABLE:
      return "no connection (nothing listens there, or the TLS handshake failed)";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "no answer in time";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "what listens there has no health service";
    default:
      return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
  }
}

struct Answer {
  grpc::Status status;
  bool serving = false;
};

// Of grpc.health.v1, for the server as a whole.
Answer AskHealth(const std::shared_ptr<grpc::Channel>& channel, absl::Duration timeout) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  grpc::CompletionQueue queue;
  const grpc::Slice no_service;  // a HealthCheckRequest without a service
  const grpc::ByteBuffer request(&no_service, 1);
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  Answer answer;
  call->Finish(&response, &answer.status, &queue);
  void* tag = nullptr;
  bool ok = false;
  if (!queue.Next(&tag, &ok) || !ok) answer.status = grpc::Status(grpc::StatusCode::INTERNAL, "");
  if (!answer.status.ok()) return answer;
  grpc::Slice bytes;
  grpc::health::v1::HealthCheckResponse message;
  answer.serving = response.DumpToSingleSlice(&bytes).ok() &&
                   message.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size())) &&
                   message.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  return answer;
}

}  // namespace

absl::Status CheckHealth(const std::string& target, const tls::Files& tls, absl::Duration timeout) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (tls) {
    const auto own = tls.certificate->Snapshot();
    credentials = grpc::SslCredentials(
        {tls.authorities->Snapshot()->certificates.pem, std::string(own->key_pem.Reveal()), own->certificates.pem});
    if (const std::string name = FirstDnsName(own->certificates.pem); !name.empty()) {
      arguments.SetSslTargetNameOverride(name);
    }
  }
  const Answer answer = AskHealth(grpc::CreateCustomChannel(target, credentials, arguments), timeout);
  if (!answer.status.ok()) {
    return absl::UnavailableError("the server does not answer: " + InWords(answer.status.error_code()));
  }
  return answer.serving ? absl::OkStatus() : absl::UnavailableError("the server is not serving");
}

bool CallsToSelf::Answered(absl::Duration timeout) {
  if (!channel_) channel_ = server_.InProcessChannel(grpc::ChannelArguments());
  if (AskHealth(channel_, timeout).status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return false;
  channel_.reset();
  return true;
}

}  // namespace userintent::rpc
