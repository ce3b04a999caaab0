// Measures the SQLite ledger. Not a test.
//   ledger_bench calls DIRECTORY CONCURRENT CALLS    pairs of Begin and Finish, calls and syncs a second
//   ledger_bench start DIRECTORY ROWS                makes ROWS rows where there is no ledger; opens it
//   ledger_bench stats DIRECTORY SLICE               an operator's statistics, and how long they hold the writer at
//   most
//   ledger_bench backup DIRECTORY FILE CONCURRENT    a copy, with so many calls at once beside it, and how long they
//   take
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "server/ledger/backup.h"
#include "server/ledger/sqlite_ledger.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// That this process has had written to the disk.
int64_t BytesWritten() {
  std::ifstream all("/proc/self/io");
  for (std::string name; all >> name;) {
    int64_t bytes = 0;
    all >> bytes;
    if (name == "write_bytes:") return bytes;
  }
  return 0;
}

SqliteLedgerOptions Options(const std::string& directory, bool fast) {
  SqliteLedgerOptions options;
  options.store.path = directory + "/ledger.db";
  options.store.key_id = kKey;
  options.store.vfs = FaultVfs::Get().name();
  options.store.synchronous_normal = fast;
  options.unknown_reason = 19;
  options.warn = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  return options;
}

// Keeps `concurrent` pairs under way until `calls` are done. Ids and digests are random, as in life.
struct Driver {
  Ledger& ledger;
  int left;
  int concurrent;
  std::vector<double> took;
  int done = 0;
  Pump pump;

  void Next() {
    if (left == 0) return;
    --left;
    BeginRequest request;
    request.key = {"spiffe://example.test/ns/bench/sa/caller", RandomUuid()};
    request.current.key_id = kKey;
    for (Digest* digest : {&request.current.content, &request.current.person, &request.current.email}) {
      for (size_t at = 0; at < 32; at += 16) {
        const Uuid bytes = RandomUuid();
        std::memcpy(digest->data() + at, bytes.data(), bytes.size());
      }
    }
    request.attempt_id = RandomUuid();
    request.now = absl::Now();
    const Clock::time_point from = Clock::now();
    const Key key = request.key;
    ledger.Begin(std::move(request), pump, [this, key, from](BeginAnswer answer) {
      if (answer.verdict != BeginVerdict::kGo) std::abort();
      FinishRequest end = Succeeded(key, UuidText(key.request_id));
      end.answer.astra_request_id = "0123456789abcdef0123456789abcdef";
      ledger.Finish(std::move(end), pump, [this, from](FinishAnswer finished) {
        if (!finished.committed) std::abort();
        took.push_back(Seconds(from));
        ++done;
        Next();
      });
    });
  }
  void Run(int calls) {
    left = calls;
    for (int i = 0; i < concurrent; ++i) Next();
    pump.Until([this, calls] { return done == calls; });
  }
};

int Calls(const std::string& directory, int concurrent, int calls) {
  SqliteLedgerOptions options = Options(directory, false);
  std::vector<double> turns;  // the writer's; read once it has ended
  options.on_batch = [&turns](const BatchReport& report) { turns.push_back(absl::ToDoubleMilliseconds(report.took)); };
  auto ledger = SqliteLedger::Open(std::move(options)).value();
  Driver driver{*ledger, 0, concurrent, {}, 0, {}};
  FaultVfs& vfs = FaultVfs::Get();
  const int64_t syncs = vfs.syncs;
  const double cpu = CpuSeconds();
  const int64_t written = BytesWritten();
  const auto from = Clock::now();
  driver.Run(calls);
  const double seconds = Seconds(from);
  std::sort(driver.took.begin(), driver.took.end());
  const auto at = [&](double share) {
    return driver.took[static_cast<size_t>(share * static_cast<double>(driver.took.size() - 1))] * 1e3;
  };
  std::printf(
      "%d at once: %.0f calls/s, %.4f syncs/call, p50 %.1f ms, p99 %.1f ms, %.1f us CPU/call, %.0f bytes "
      "written/call\n",
      concurrent, calls / seconds, static_cast<double>(vfs.syncs - syncs) / calls, at(0.5), at(0.99),
      (CpuSeconds() - cpu) / calls * 1e6, static_cast<double>(BytesWritten() - written) / calls);
  ledger.reset();
  std::sort(turns.begin(), turns.end());
  const auto turn = [&](double share) {
    return turns[static_cast<size_t>(share * static_cast<double>(turns.size() - 1))];
  };
  std::printf("%zu turns of the writer: p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n", turns.size(), turn(0.5),
              turn(0.99), turn(1));
  return 0;
}

int Start(const std::string& directory, int rows) {
  if (!std::filesystem::exists(directory + "/ledger.db")) {
    auto ledger = SqliteLedger::Open(Options(directory, true)).value();
    Driver driver{*ledger, 0, 1024, {}, 0, {}};
    const auto from = Clock::now();
    driver.Run(rows);
    std::printf("%d rows made in %.1f s\n", rows, Seconds(from));
  }
  const auto size = std::filesystem::file_size(directory + "/ledger.db");
  std::printf("%.0f bytes a row\n", static_cast<double>(size) / rows);
  for (int i = 0; i < 3; ++i) {
    const auto from = Clock::now();
    const double cpu = CpuSeconds();
    const auto ledger = SqliteLedger::Open(Options(directory, false));
    std::printf("ready after %.3f s, %.3f s of CPU (%s)\n", Seconds(from), CpuSeconds() - cpu,
                ledger.ok() ? "ok" : "refused");
  }
  return 0;
}

int Backup(const std::string& directory, const std::string& file, int concurrent) {
  const auto ledger = SqliteLedger::Open(Options(directory, false)).value();
  const auto between = [&ledger](absl::FunctionRef<absl::Status(SqliteStore&)> work) {
    return ledger->Between([&work](SqliteStore& store) { return work(store); });
  };
  Driver driver{*ledger, 0, concurrent, {}, 0, {}};
  const auto calls = [&](const char* when, const std::function<bool()>& more) {
    driver.took.clear();
    const auto from = Clock::now();
    while (more()) {
      driver.done = 0;
      driver.Run(concurrent * 4);
    }
    std::sort(driver.took.begin(), driver.took.end());
    if (driver.took.empty()) return;
    const double count = static_cast<double>(driver.took.size());
    const auto at = [&](double share) { return driver.took[static_cast<size_t>(share * (count - 1))] * 1e3; };
    std::printf("%s: %.0f calls/s, p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", when, count / Seconds(from), at(0.5),
                at(0.99), at(1));
  };
  const auto end = Clock::now() + std::chrono::seconds(concurrent == 0 ? 0 : 5);
  if (concurrent != 0) calls("without", [&] { return Clock::now() < end; });
  std::atomic<bool> done{false};
  absl::StatusOr<BackupReport> report = absl::UnknownError("");
  std::thread copier([&] {
    BackupOptions options;
    options.path = file;
    report = BackUp(between, options);
    done = true;
  });
  if (concurrent != 0) calls("meanwhile", [&] { return !done; });
  copier.join();
  if (!report.ok()) return std::printf("%s\n", report.status().ToString().c_str()), 1;
  std::printf("%.0f MB in %.2f s, the longest slice %.1f ms\n", static_cast<double>(report->copy.bytes) * 1e-6,
              absl::ToDoubleSeconds(report->took), absl::ToDoubleMilliseconds(report->longest_slice));
  const auto from = Clock::now();
  const bool good = CheckCopy(file).ok();
  std::printf("checked alone in %.2f s: %s\n", Seconds(from), good ? "good" : "bad");
  return good ? 0 : 1;
}

int Stats(const std::string& directory, int slice) {
  const auto ledger = SqliteLedger::Open(Options(directory, false)).value();
  Totals totals;
  double longest = 0;
  const auto from = Clock::now();
  while (!totals.done) {
    const auto one = Clock::now();
    if (!ledger->Administer([&](SqliteStore& store) { return store.Add(3, slice, totals); }).ok()) return 1;
    longest = std::max(longest, Seconds(one));
  }
  std::printf("%lld addresses: %.3f s, the longest slice %.1f ms\n", static_cast<long long>(totals.addresses),
              Seconds(from), longest * 1e3);
  const auto one = Clock::now();
  if (!ledger
           ->Administer([](SqliteStore& store) {
             return store.Oldest(State::kUnknown, absl::InfiniteFuture(), false, 100).status();
           })
           .ok()) {
    return 1;
  }
  std::printf("the oldest unresolved: %.2f ms\n", Seconds(one) * 1e3);
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "calls" && argc == 5) return Calls(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  if (what == "start" && argc == 4) return Start(argv[2], std::atoi(argv[3]));
  if (what == "stats" && argc == 4) return Stats(argv[2], std::atoi(argv[3]));
  if (what == "backup" && argc == 5) return Backup(argv[2], argv[3], std::atoi(argv[4]));
  std::fprintf(stderr,
               "usage: ledger_bench calls DIRECTORY CONCURRENT CALLS | start DIRECTORY ROWS | stats DIRECTORY SLICE"
               " | backup DIRECTORY FILE CONCURRENT\n");
  return 1;
}

}  // namespace
}  // namespace userintent::ledger

int main(int argc, char** argv) { return userintent::ledger::Main(argc, argv); }
