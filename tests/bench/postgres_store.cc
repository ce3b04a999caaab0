// What the ledger's store in PostgreSQL costs by itself: pairs of Begin and Finish, each of a new request and a new
// address, without any gateway around it.
//   bench-postgres-store URL CONCURRENT PAIRS    URL: of an empty database, or of one that this program has used before
//
// Prints one line of JSON. The writer is BatchLedger's; this thread plays the callers.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/ledger/batch_ledger.h"
#include "server/ledger/housekeeper.h"
#include "server/postgres/schema.h"
#include "server/postgres/store.h"

namespace userintent::postgres {
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

// The callers' thread: runs what is posted to it.
class Callers final : public Executor {
 public:
  void Post(Task task) override {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    ready_.notify_one();
  }
  void RunOne() {
    Task task;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return !tasks_.empty(); });
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Task> tasks_;
};

// There is nothing to look after.
class NoHousekeeper final : public ledger::Housekeeper {
 public:
  void Look(ledger::GroupCommit& commit, Time) override { commit.set_admit(true); }
  void BeforeWrites(ledger::GroupCommit&, Time) override {}
  void WhenIdle(ledger::GroupCommit&, Time) override {}
  void AfterTurn(const ledger::GroupCommit&) override {}
  void AtEnd(ledger::GroupCommit&) override {}
  Time NextDue(bool) const override { return Time::max(); }
  bool writable() const override { return true; }
};

// Keeps so many pairs under way until `left` is 0 and all have ended.
struct Pairs {
  ledger::Ledger& ledger;
  int left;
  Callers callers{};
  std::vector<double> begun{}, finished{};  // how long each took

  void Next() {
    if (left == 0) return;
    --left;
    ledger::BeginRequest request;
    request.key = {"spiffe://example.test/ns/bench/sa/caller", RandomUuid()};
    request.current.key_id = 1;
    for (ledger::Digest* digest : {&request.current.content, &request.current.person, &request.current.email}) {
      for (size_t at = 0; at < digest->size(); at += 16) {
        const Uuid bytes = RandomUuid();
        std::memcpy(digest->data() + at, bytes.data(), bytes.size());
      }
    }
    request.attempt_id = RandomUuid();
    request.now = NowMicros();
    const ledger::Key key = request.key;
    ledger.Begin(std::move(request), callers, [this, key, from = Clock::now()](const ledger::BeginAnswer& answer) {
      begun.push_back(Seconds(from));
      if (answer.verdict != ledger::BeginVerdict::kGo) Fail("a Begin was not let go");
      Finish(key, answer.owner.epoch);
    });
  }
  void Finish(const ledger::Key& key, int64_t owner) {
    ledger::FinishRequest end;
    end.key = key;
    end.owner = owner;
    end.state = ledger::State::kSucceeded;
    end.sent = ledger::Sent::kYes;
    end.now = NowMicros();
    end.answer = {201, true, UuidText(key.request_id), "pending", "0123456789abcdef0123456789abcdef", end.now};
    ledger.Finish(std::move(end), callers, [this, from = Clock::now()](const ledger::FinishAnswer& answer) {
      finished.push_back(Seconds(from));
      if (!answer.committed) Fail("a Finish was not committed");
      Next();
    });
  }
  [[noreturn]] static void Fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
  }
};

double Milliseconds(std::vector<double>& took, double share) {
  std::sort(took.begin(), took.end());
  return took[static_cast<size_t>(share * static_cast<double>(took.size() - 1))] * 1e3;
}

int Run(const std::string& url, int concurrent, int pairs) {
  StoreOptions options;
  options.connection = {url, "bench"};
  const auto connection = Connection::Open(options.connection);
  if (!connection.ok() || !Migrate(**connection).ok()) Pairs::Fail("the database cannot be used");
  // A replica that nobody watches.
  const auto replica =
      (*connection)
          ->Query("INSERT INTO replica (name) VALUES ('bench') RETURNING epoch", std::initializer_list<Value>{});
  if (!replica.ok()) Pairs::Fail("no replica can be registered");
  options.owner = [epoch = replica->Number(0, 0)] { return ledger::Owner{epoch, nullptr}; };
  auto store = Store::Open(options);
  if (!store.ok()) Pairs::Fail("the store does not open");
  const Store& counted = **store;
  ledger::BatchOptions batches;
  std::atomic<int> commits{0};
  batches.on_batch = [&commits](const ledger::BatchReport&) { ++commits; };
  double seconds = 0, cpu = 0;
  std::vector<double> begun, finished;
  int64_t trips = 0;
  {
    ledger::BatchLedger ledger(*std::move(store), std::make_unique<NoHousekeeper>(), std::move(batches));
    Pairs run{ledger, pairs};
    cpu = CpuSeconds();
    const auto from = Clock::now();
    for (int i = 0; i < concurrent; ++i) run.Next();
    while (run.finished.size() < static_cast<size_t>(pairs)) run.callers.RunOne();
    seconds = Seconds(from);
    cpu = CpuSeconds() - cpu;
    begun = std::move(run.begun);
    finished = std::move(run.finished);
    trips = counted.round_trips();  // the writer sleeps: nothing is queued
  }
  std::printf(
      "{\"concurrent\":%d,\"pairs\":%d,\"pairs_per_s\":%.0f,\"begin_p50_ms\":%.2f,\"begin_p99_ms\":%.2f,"
      "\"finish_p50_ms\":%.2f,\"finish_p99_ms\":%.2f,\"cpu_us\":%.1f,\"batches\":%d,\"round_trips\":%lld}\n",
      concurrent, pairs, pairs / seconds, Milliseconds(begun, 0.5), Milliseconds(begun, 0.99),
      Milliseconds(finished, 0.5), Milliseconds(finished, 0.99), 1e6 * cpu / pairs, commits.load(),
      static_cast<long long>(trips));
  return 0;
}

}  // namespace
}  // namespace userintent::postgres

int main(int argc, char** argv) {
  const int concurrent = argc == 4 ? std::atoi(argv[2]) : 0;
  const int pairs = argc == 4 ? std::atoi(argv[3]) : 0;
  if (concurrent <= 0 || pairs <= 0) {
    std::fprintf(stderr, "usage: bench-postgres-store URL CONCURRENT PAIRS\n");
    return 2;
  }
  return userintent::postgres::Run(argv[1], concurrent, pairs);
}
