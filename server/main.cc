// userintent-server: flags -> Server -> wait for a signal -> drain. The only file that no test links.

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/synchronization/mutex.h"
#include "server/config.h"
#include "server/observe/log.h"
#include "server/rpc/listener.h"
#include "server/server.h"

namespace userintent {
namespace {

// Memory holds people's data, so it is never written to a core file nor shown to a debugger of another user.
void Harden() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  unsetenv("SSLKEYLOGFILE");  // libcurl would write the keys of its connections there
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is a failing disk, which the ledger knows how to bear
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "userintent-server: %s\n", std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

int Main(int argc, char** argv) {
  Harden();
  // Debian builds Abseil without NDEBUG: gRPC's mutexes look for deadlock cycles at every lock, 3-5 % of all CPU time.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // Before any thread exists, so that every thread inherits it and only this one takes signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const Config config = LoadConfigOrExit(argc, argv);
  rpc::DropGrpcLog();  // why a start fails is said in one line, and not by libgrpc
  if (config.action == Config::Action::kHealthcheck) {
    if (absl::Status status = ProbeHealth(config); !status.ok()) return Fail(status);
    std::puts("serving");
    return EXIT_SUCCESS;
  }

  observe::SetLogLevel(config.log_level);
  auto server = Server::Start(config);
  if (!server.ok()) return Fail(server.status());
  observe::StartLog();
  rpc::RouteGrpcLog();

  const timespec interval{0, 200 * 1000 * 1000};
  int signal_number = -1;
  while ((signal_number = sigtimedwait(&signals, nullptr, &interval)) < 0) (*server)->HouseKeep();
  (*server)->Drain();
  server->reset();
  observe::StopLog();
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace userintent

int main(int argc, char** argv) { return userintent::Main(argc, argv); }
