// crash-server: userintent-server, with the same flags, that ends itself by SIGKILL at a named point of its code.
//
//   CRASH_AT=name:nth       at the nth arrival at the point of that name
//   CRASH_ARM=signal        arrivals count from SIGUSR1 on; otherwise from the start
//   CRASH_LINGER_MS=n       the thread stops at the point for so long first, as on a slow disk, while the others go on:
//                           what they do too early then becomes visible
//
// It also shortens the write-ahead log's life, so that tests need not write megabytes to see it copied, and adds one
// point of its own, during-checkpoint: before each page that is written into the database file.

#include <signal.h>
#include <sqlite3.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "server/app/server.h"
#include "server/app/signals.h"
#include "server/base/crash_point.h"
#include "server/config/load.h"
#include "server/observe/log.h"
#include "server/rpc/grpc_log.h"

namespace userintent {

void InstallCrashHook(CrashHook::Function hook) { CrashHook::installed_.store(hook); }

namespace {

std::string crash_name;  // written before the first thread starts
std::atomic<int> arrivals_left{0};
std::atomic<bool> armed{false};
long linger_ms = 0;

void CrashIfHere(std::string_view name) {
  if (!armed.load() || name != crash_name) return;
  if (arrivals_left.fetch_sub(1) != 1) return;
  timespec linger{linger_ms / 1000, linger_ms % 1000 * 1000 * 1000};
  while (linger_ms > 0 && nanosleep(&linger, &linger) != 0) {
  }
  kill(getpid(), SIGKILL);
  for (;;) pause();  // no instruction beyond the point
}

// False: the variable is there and makes no sense.
bool ReadEnvironment() {
  const char* at = std::getenv("CRASH_AT");
  if (at == nullptr) return true;
  const std::string_view text(at);
  const size_t colon = text.rfind(':');
  if (colon == text.npos || colon == 0) return false;
  int nth = 0;
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), nth);
  if (error != std::errc() || end != text.data() + text.size() || nth < 1) return false;
  crash_name = text.substr(0, colon);
  arrivals_left = nth;
  const char* linger = std::getenv("CRASH_LINGER_MS");
  linger_ms = linger == nullptr ? 0 : std::atol(linger);
  const char* arm = std::getenv("CRASH_ARM");
  armed = arm == nullptr || std::string_view(arm) != "signal";
  signal(SIGUSR1, [](int) { armed = true; });
  InstallCrashHook(&CrashIfHere);
  return true;
}

// SQLite's own file system, but for the writes into the database file itself: in WAL mode those are a checkpoint's.
sqlite3_vfs* real_vfs = nullptr;
sqlite3_vfs watching_vfs;
const sqlite3_io_methods* real_methods = nullptr;
sqlite3_io_methods watching_methods;

int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  CrashPoint("during-checkpoint");
  return real_methods->xWrite(file, data, size, offset);
}

int Open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  const int code = real_vfs->xOpen(real_vfs, name, file, flags, out_flags);
  if (code == SQLITE_OK && (flags & SQLITE_OPEN_MAIN_DB) != 0) {
    real_methods = file->pMethods;
    watching_methods = *real_methods;
    watching_methods.xWrite = &Write;
    file->pMethods = &watching_methods;
  }
  return code;
}

bool WatchDatabaseWrites() {
  real_vfs = sqlite3_vfs_find(nullptr);
  if (real_vfs == nullptr) return false;
  watching_vfs = *real_vfs;
  watching_vfs.zName = "crash-server";
  watching_vfs.xOpen = &Open;
  return sqlite3_vfs_register(&watching_vfs, 1) == SQLITE_OK;
}

int Fail(const std::string& text) {
  std::fprintf(stderr, "crash-server: %s\n", text.c_str());
  return EXIT_FAILURE;
}

// As userintent-server's main, but for what is above.
int Main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  if (!ReadEnvironment()) return Fail("CRASH_AT is not name:nth");
  if (!WatchDatabaseWrites()) return Fail("SQLite has no file system");

  config::Loaded loaded = config::LoadOrExit(argc, argv);
  rpc::RouteGrpcLog();
  Signals& signals = *new Signals(absl::ToChronoNanoseconds(loaded.settings.drain_timeout) + std::chrono::seconds(5));
  observe::SetLogLevel(loaded.settings.log_level);
  auto server = Server::Start(std::move(loaded));
  if (!server.ok()) return Fail(std::string(server.status().message()));
  observe::StartLog();

  ServeUntilStopped(**server, signals);
  server->reset();
  observe::StopLog();
  return EXIT_SUCCESS;
}

using WalHook = int (*)(void*, sqlite3*, const char*, int frames);
constexpr int kFramesForOne = 64;
WalHook wal_hook = nullptr;

}  // namespace
}  // namespace userintent

// The linker puts this in place of sqlite3_wal_hook (--wrap): the log tells that it is kFramesForOne times as long as
// it is, and is copied into the database that much sooner.
// NOLINTBEGIN(bugprone-reserved-identifier): the linker makes the names.
extern "C" void* __real_sqlite3_wal_hook(sqlite3*, userintent::WalHook, void*);
extern "C" void* __wrap_sqlite3_wal_hook(sqlite3* db, userintent::WalHook hook, void* self) {
  userintent::wal_hook = hook;
  return __real_sqlite3_wal_hook(
      db,
      [](void* that, sqlite3* of, const char* name, int frames) {
        return userintent::wal_hook(that, of, name, frames * userintent::kFramesForOne);
      },
      self);
}
// NOLINTEND(bugprone-reserved-identifier)

int main(int argc, char** argv) { return userintent::Main(argc, argv); }
