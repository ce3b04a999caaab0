// userintent-server: flags -> Server -> wait for a signal -> drain. The end-to-end tests run it as a program.

#include <sys/prctl.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/app/probe_health.h"
#include "server/app/server.h"
#include "server/app/signals.h"
#include "server/base/environment.h"
#include "server/base/process.h"
#include "server/config/load.h"
#include "server/observe/log.h"
#include "server/rpc/grpc_log.h"

namespace userintent {
namespace {

// What the watchdog leaves for the end after the drain: the last answers, the ledger's checkpoint.
constexpr auto kBeyondDrain = std::chrono::seconds(5);

// Memory holds people's data, so it is never written to a core file nor shown to a debugger of another user.
void Harden() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  IgnoreStraySignals();  // with SIGXFSZ: a file that may not grow is a failing disk, which the ledger knows how to bear
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "userintent-server: %s\n", std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

int Main(int argc, char** argv) {
  Harden();
  // Debian builds Abseil without NDEBUG: gRPC's mutexes look for deadlock cycles at every lock, 3-5 % of all CPU time.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);

  config::Loaded loaded = config::LoadOrExit(argc, argv);
  rpc::DropGrpcLog();  // why a start fails is said in one line, and not by libgrpc
  if (loaded.action == config::Action::kHealthcheck) {
    if (absl::Status status = ProbeHealth(loaded.settings); !status.ok()) return Fail(status);
    std::puts("serving");
    return EXIT_SUCCESS;
  }

  Signals& signals = *new Signals(absl::ToChronoNanoseconds(loaded.settings.drain_timeout) + kBeyondDrain);
  RaiseDescriptorLimit();
  observe::SetLogLevel(loaded.settings.log_level);
  auto server = Server::Start(std::move(loaded));
  if (!server.ok()) return Fail(server.status());
  observe::StartLog();
  rpc::RouteGrpcLog();

  ServeUntilStopped(**server, signals);
  server->reset();
  observe::StopLog();
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace userintent

[[gnu::used,
  gnu::section(".preinit_array")]] void (*open_standard_descriptors)() = &userintent::OpenStandardDescriptors;

[[gnu::used, gnu::section(".preinit_array")]] void (*clean_environment)(int, char**,
                                                                        char**) = &userintent::CleanEnvironment;

int main(int argc, char** argv) { return userintent::Main(argc, argv); }
