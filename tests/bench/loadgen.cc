// Load for the benchmark: N calls of CreateUserIntent always in flight (closed loop) against one target, each with a
// request_id and a person of its own. Prints "begin" and "end" lines round the measured window, so that whoever runs it
// can read the server's CPU time at both, and then one JSON object.
//
//   loadgen TARGET IN_FLIGHT WARMUP_SECONDS SECONDS [CHANNELS]
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/uuid.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
using Stub = userintent::v1::UserIntentService::Stub;

struct Call {
  grpc::ClientContext context;
  userintent::v1::CreateUserIntentResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<userintent::v1::CreateUserIntentResponse>> reader;
  Clock::time_point begun;
};

void FillPerson(const std::string& id, userintent::v1::CreateUserIntentRequest* request) {
  request->set_request_id(id);
  request->set_email("bench." + id + "@example.com");
  request->set_phone("+14155550123");
  request->set_first_name("Benchmark");
  request->set_last_name("Person");
  request->set_address1("123 Example Avenue");
  request->set_address2("Apt 4");
  request->set_city("Palo Alto");
  request->set_state("CA");
  request->set_postal_code("94304");
  request->set_date_of_birth("1985-02-03");
  request->set_ssn_last_four("1234");
  request->set_ip_address("8.8.8.8");
  request->set_verification_type(userintent::v1::VERIFICATION_TYPE_VERIFIED);
  (*request->mutable_metadata())["customer_id"] = id;
}

void Begin(Stub& stub, grpc::CompletionQueue& queue) {
  auto* call = new Call;
  userintent::v1::CreateUserIntentRequest request;
  FillPerson(userintent::UuidText(userintent::RandomUuid()), &request);
  call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  call->begun = Clock::now();
  call->reader = stub.AsyncCreateUserIntent(&call->context, request, &queue);
  call->reader->Finish(&call->response, &call->status, call);
}

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: loadgen TARGET IN_FLIGHT WARMUP_SECONDS SECONDS [CHANNELS]\n");
    return 2;
  }
  const int in_flight = std::atoi(argv[2]);
  const double warmup = std::atof(argv[3]);
  const double window = std::atof(argv[4]);
  const int channels = argc > 5 ? std::atoi(argv[5]) : std::max(1, in_flight / 500);

  std::vector<std::unique_ptr<Stub>> stubs;
  for (int i = 0; i < channels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt("loadgen.channel", i);  // channels with equal arguments would share one connection
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stubs.push_back(userintent::v1::UserIntentService::NewStub(
        grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments)));
  }

  grpc::CompletionQueue queue;
  size_t next = 0;
  int open = 0;
  for (; open < in_flight; ++open) Begin(*stubs[next++ % stubs.size()], queue);

  std::vector<float> latencies;
  std::map<int, long> codes;
  const auto start = Clock::now();
  Clock::time_point begin;
  Clock::time_point end;
  enum { kWarmup, kMeasure, kDrain } phase = kWarmup;
  while (open > 0) {
    void* tag = nullptr;
    bool ok = false;
    if (!queue.Next(&tag, &ok)) break;
    const std::unique_ptr<Call> call(static_cast<Call*>(tag));
    const auto now = Clock::now();
    if (phase == kWarmup && Seconds(now - start) >= warmup) {
      phase = kMeasure;
      begin = now;
      std::puts("begin");
      std::fflush(stdout);
    } else if (phase == kMeasure && Seconds(now - begin) >= window) {
      phase = kDrain;
      end = now;
      std::puts("end");
      std::fflush(stdout);
    }
    if (phase == kMeasure) {
      latencies.push_back(static_cast<float>(Seconds(now - call->begun)));
      ++codes[call->status.error_code()];
    }
    --open;
    if (phase != kDrain) {
      Begin(*stubs[next++ % stubs.size()], queue);
      ++open;
    }
  }

  std::sort(latencies.begin(), latencies.end());
  const auto percentile = [&](double p) {
    if (latencies.empty()) return 0.0;
    return 1e6 * static_cast<double>(latencies[static_cast<size_t>(p * static_cast<double>(latencies.size() - 1))]);
  };
  const double seconds = Seconds(end - begin);
  std::printf("{\"calls\":%zu,\"ok\":%ld,\"seconds\":%.3f,\"per_second\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n",
              latencies.size(), codes[0], seconds, static_cast<double>(latencies.size()) / seconds, percentile(0.5),
              percentile(0.99));
  return codes[0] == static_cast<long>(latencies.size()) ? 0 : 1;
}
