// userintent-server: flags -> Server -> wait for a signal -> drain. The end-to-end tests run it as a program.

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/app/probe_health.h"
#include "server/app/server.h"
#include "server/base/environment.h"
#include "server/base/mutex.h"
#include "server/base/process.h"
#include "server/config/load.h"
#include "server/observe/log.h"
#include "server/rpc/grpc_log.h"

namespace userintent {
namespace {

constexpr auto kHouseKeeping = std::chrono::milliseconds(200);
// A terminal and a script that both pass on one Ctrl-C send it twice within a moment, and mean it once.
constexpr auto kSameWish = std::chrono::milliseconds(200);

// Memory holds people's data, so it is never written to a core file nor shown to a debugger of another user.
void Harden() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
  IgnoreStraySignals();  // with SIGXFSZ: a file that may not grow is a failing disk, which the ledger knows how to bear
}

// The signals that mean something here. TERM and INT: drain, then end. The second one, and QUIT at any time: end at
// once, with the status 128 + signal as a shell tells it. HUP: read the files again. A thread waits for them, because
// main is busy while it starts and drains.
class Signals {
 public:
  enum class Wish { kNone, kReload, kStop };

  // Before any other thread exists, so that every thread inherits the mask and only the one here takes signals.
  Signals() {
    sigemptyset(&set_);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::thread([this] { Run(); }).detach();  // until the process ends, and so does this object
  }

  // What came since the last call, at the latest after `wait`.
  Wish Next(std::chrono::milliseconds wait) {
    const auto end = std::chrono::steady_clock::now() + wait;
    const MutexLock lock(mutex_);
    while (!stop_ && !reload_ && came_.WaitUntil(mutex_, end)) continue;
    if (stop_) return Wish::kStop;
    return std::exchange(reload_, false) ? Wish::kReload : Wish::kNone;
  }

 private:
  void Run() {
    std::chrono::steady_clock::time_point first{};
    for (;;) {
      int number = 0;
      if (sigwait(&set_, &number) != 0) continue;
      const auto now = std::chrono::steady_clock::now();
      const MutexLock lock(mutex_);
      if (number == SIGHUP) {
        reload_ = true;
      } else if (number == SIGQUIT) {
        EndAtOnce(number);
      } else if (!stop_) {
        stop_ = true;
        first = now;
      } else if (now - first > kSameWish) {
        EndAtOnce(number);
      }
      came_.NotifyOne();
    }
  }

  // By intention without a drain: exchanges under way become UNKNOWN at the next start, as after a crash.
  [[noreturn]] static void EndAtOnce(int number) {
    observe::Log(observe::Level::kError, "ended_at_once", {{"signal", number}});
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the line is written by another thread
    _exit(128 + number);
  }

  sigset_t set_;
  Mutex mutex_;
  CondVar came_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool reload_ ABSL_GUARDED_BY(mutex_) = false;
};

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

  Signals& signals = *new Signals;  // its thread may outlive main
  RaiseDescriptorLimit();
  observe::SetLogLevel(loaded.settings.log_level);
  auto server = Server::Start(std::move(loaded));
  if (!server.ok()) return Fail(server.status());
  observe::StartLog();
  rpc::RouteGrpcLog();

  for (;;) {
    const Signals::Wish wish = signals.Next(kHouseKeeping);
    if (wish == Signals::Wish::kStop) break;
    if (wish == Signals::Wish::kReload) (*server)->ReloadFiles();
    (*server)->HouseKeep();
  }
  (*server)->Drain();
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
