#include "server/rpc/grpc_log.h"

#include <grpcpp/version_info.h>

#include <chrono>
#include <string_view>

#include "server/observe/log.h"

#if GRPC_CPP_VERSION_MAJOR > 1 || GRPC_CPP_VERSION_MINOR >= 66
#include <thread>

#include "absl/base/log_severity.h"
#include "absl/log/globals.h"
#include "absl/log/initialize.h"
#include "absl/log/log_entry.h"
#include "absl/log/log_sink.h"
#include "absl/log/log_sink_registry.h"
#else
#include <grpc/support/log.h>
#endif

namespace userintent::rpc {
namespace {

void Tell(std::string_view path, int line) {
  const observe::SafeText file(path.substr(path.rfind('/') + 1));
  // What it says of handshakes is said better, with the peer's address, by tls_watch.cc.
  if (file.text() == "ssl_transport_security.cc") return;
  // A hostile peer can make libgrpc log at line rate.
  static observe::LogLimiter limiter(std::chrono::seconds(1));
  if (const auto held = limiter.Allow()) {
    observe::Log(observe::Level::kWarn, "grpc", {{"file", file}, {"line", line}, {"suppressed", *held}});
  }
}

}  // namespace

#if GRPC_CPP_VERSION_MAJOR > 1 || GRPC_CPP_VERSION_MINOR >= 66

namespace {

class Sink final : public absl::LogSink {
 public:
  void Send(const absl::LogEntry& entry) override {
    if (entry.log_severity() == absl::LogSeverity::kFatal) {
      // The process ends after this, whatever was said a moment ago.
      observe::Log(observe::Level::kError, "grpc",
                   {{"file", observe::SafeText(entry.source_basename())}, {"line", entry.source_line()}});
    } else if (entry.log_severity() == absl::LogSeverity::kError) {
      Tell(entry.source_filename(), entry.source_line());
    }
  }

  // Called before the process ends for a fatal line, which another thread writes.
  void Flush() override { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }
};

}  // namespace

void DropGrpcLog() {
  // Nothing reaches stderr once this is set and the log is initialized, whatever level the environment asks for.
  absl::SetStderrThreshold(absl::LogSeverityAtLeast::kInfinity);
  [[maybe_unused]] static const bool once = [] {
    absl::InitializeLog();
    return true;
  }();
}

void RouteGrpcLog() {
  DropGrpcLog();
  absl::SetMinLogLevel(absl::LogSeverityAtLeast::kError);
  static absl::LogSink* const sink = [] {
    auto* const made = new Sink;
    absl::AddLogSink(made);
    return made;
  }();
  (void)sink;
}

#else

void DropGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args*) {});
}

void RouteGrpcLog() {
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
  gpr_set_log_function([](gpr_log_func_args* args) {
    if (args->severity == GPR_LOG_SEVERITY_ERROR) Tell(args->file, args->line);
  });
}

#endif

}  // namespace userintent::rpc
