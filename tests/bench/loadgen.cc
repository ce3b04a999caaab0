// Load for the benchmark: calls of CreateUserIntent against one target, each with a request_id and a person of its own.
//
//   bench-loadgen TARGET --in_flight=N | --rate=R  --warmup=SECONDS --seconds=SECONDS [--channels=N]
//
// Closed loop: N calls always in flight. Open loop: R calls a second, begun when they are due whatever became of the
// others (exponential gaps, the same sequence in each run), and the latency counts from when a call was due.
//
// Prints "begin" and "end" round the measured window, so that whoever runs it can read the server's CPU time at both;
// the load goes on for a moment after the end, so that a reader who is late at both ends errs by the same. Then one
// JSON object: the window's calls and latencies, and of the whole run every call and every answer that was not as it
// should be.
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "server/base/uuid.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;
using Stub = userintent::v1::UserIntentService::Stub;

constexpr double kTail = 0.15;  // seconds of load behind the window

struct Options {
  std::string target;
  int in_flight = 0;
  double rate = 0;
  double warmup = 1;
  double seconds = 3;
  int channels = 0;
};

struct Call {
  grpc::ClientContext context;
  userintent::v1::CreateUserIntentResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<userintent::v1::CreateUserIntentResponse>> reader;
  Clock::time_point begun;
};

double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

bool ParseOptions(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const size_t equals = word.find('=');
    if (word.substr(0, 2) != "--") {
      options->target = word;
      continue;
    }
    if (equals == word.npos) return false;
    const std::string_view name = word.substr(2, equals - 2);
    const double value = std::atof(argv[i] + equals + 1);
    if (name == "in_flight") {
      options->in_flight = static_cast<int>(value);
    } else if (name == "rate") {
      options->rate = value;
    } else if (name == "warmup") {
      options->warmup = value;
    } else if (name == "seconds") {
      options->seconds = value;
    } else if (name == "channels") {
      options->channels = static_cast<int>(value);
    } else {
      return false;
    }
  }
  if (options->channels == 0) options->channels = std::max(1, options->in_flight / 500);
  return !options->target.empty() && (options->in_flight > 0) != (options->rate > 0);
}

// The calls of one run. Start() may be called from any thread; everything else belongs to the thread that reads the
// queue.
class Load {
 public:
  explicit Load(const Options& options) {
    for (int i = 0; i < options.channels; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("loadgen.channel", i);  // channels with equal arguments would share one connection
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
      stubs_.push_back(userintent::v1::UserIntentService::NewStub(
          grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments)));
    }
  }

  // `due`: from when the latency counts.
  void Start(Clock::time_point due) {
    const size_t number = begun_.fetch_add(1);
    auto* call = new Call;
    userintent::v1::CreateUserIntentRequest request;
    FillPerson(userintent::UuidText(userintent::RandomUuid()), &request);
    call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    call->begun = due;
    call->reader = stubs_[number % stubs_.size()]->AsyncCreateUserIntent(&call->context, request, &queue_);
    call->reader->Finish(&call->response, &call->status, call);
  }

  // The next call that ended, looked at; null when there will be none.
  std::unique_ptr<Call> Next() {
    void* tag = nullptr;
    bool ok = false;
    if (!queue_.Next(&tag, &ok)) return nullptr;
    std::unique_ptr<Call> call(static_cast<Call*>(tag));
    ++ended_;
    if (!call->status.ok()) {
      if (++failed_ == 1) {
        std::fprintf(stderr, "first failure: code %d, %s\n", call->status.error_code(),
                     call->status.error_message().c_str());
      }
    } else if (call->response.user_intent().id().empty() || call->response.replayed() ||
               call->response.user_intent().status() != userintent::v1::USER_INTENT_STATUS_PENDING) {
      ++wrong_;
    } else {
      ids_.push_back(std::hash<std::string>()(call->response.user_intent().id()));
    }
    return call;
  }

  size_t begun() const { return begun_.load(); }
  size_t open() const { return begun_.load() - ended_; }
  size_t failed() const { return failed_; }

  // An id that was given to two calls is one wrong answer.
  size_t Wrong() {
    std::sort(ids_.begin(), ids_.end());
    size_t twice = 0;
    for (size_t i = 1; i < ids_.size(); ++i) twice += ids_[i] == ids_[i - 1] ? 1 : 0;
    return wrong_ + twice;
  }

 private:
  static void FillPerson(const std::string& id, userintent::v1::CreateUserIntentRequest* request) {
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

  std::vector<std::unique_ptr<Stub>> stubs_;
  grpc::CompletionQueue queue_;
  std::atomic<size_t> begun_{0};
  size_t ended_ = 0;
  size_t failed_ = 0;
  size_t wrong_ = 0;
  std::vector<size_t> ids_;
};

// Begins calls when they are due, until told to stop.
void OpenLoop(Load& load, double rate, const std::atomic<bool>& stop) {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(rate);
  Clock::time_point due = Clock::now();
  while (!stop.load()) {
    due += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(gap(random)));
    std::this_thread::sleep_until(due);
    load.Start(due);
  }
}

void Say(const char* what) {
  std::puts(what);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: bench-loadgen TARGET --in_flight=N | --rate=R  --warmup=SECONDS --seconds=SECONDS "
                 "[--channels=N]\n");
    return 2;
  }
  Load load(options);
  const auto start = Clock::now();
  std::atomic<bool> stop{false};
  std::thread starter;
  if (options.rate > 0) {
    starter = std::thread([&] { OpenLoop(load, options.rate, stop); });
  } else {
    for (int i = 0; i < options.in_flight; ++i) load.Start(Clock::now());
  }

  std::vector<float> latencies;
  Clock::time_point begin;
  Clock::time_point end;
  enum { kWarmup, kMeasure, kTailing, kDrain } phase = kWarmup;
  while (phase != kDrain || load.open() > 0) {
    const std::unique_ptr<Call> call = load.Next();
    if (!call) break;
    const auto now = Clock::now();
    if (phase == kWarmup && Seconds(now - start) >= options.warmup) {
      phase = kMeasure;
      begin = now;
      Say("begin");
    } else if (phase == kMeasure && Seconds(now - begin) >= options.seconds) {
      phase = kTailing;
      end = now;
      Say("end");
    } else if (phase == kTailing && Seconds(now - end) >= kTail) {
      phase = kDrain;
      stop.store(true);
      if (starter.joinable()) starter.join();  // it is at most one gap from looking
    }
    if (phase == kMeasure) latencies.push_back(static_cast<float>(Seconds(now - call->begun)));
    if (phase != kDrain && options.in_flight > 0) load.Start(now);
  }

  std::sort(latencies.begin(), latencies.end());
  const auto percentile = [&](double p) {
    if (latencies.empty()) return 0.0;
    return 1e6 * static_cast<double>(latencies[static_cast<size_t>(p * static_cast<double>(latencies.size() - 1))]);
  };
  const double seconds = Seconds(end - begin);
  const size_t wrong = load.Wrong();
  std::printf(
      "{\"calls\":%zu,\"total\":%zu,\"failed\":%zu,\"wrong\":%zu,\"seconds\":%.4f,\"per_second\":%.1f,"
      "\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
      latencies.size(), load.begun(), load.failed(), wrong, seconds, static_cast<double>(latencies.size()) / seconds,
      percentile(0.5), percentile(0.99), percentile(1));
  return 0;
}
