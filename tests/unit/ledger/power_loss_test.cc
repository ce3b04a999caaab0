// The power fails at a write or sync of the ledger's life; what was not synced is lost or torn. Whatever was
// acknowledged must be there afterwards. LEDGER_POWER_CUTS=N tries N cut points instead of the default, 0 tries all.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "server/ledger/execute.h"
#include "server/ledger/sqlite_store.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

constexpr int kUnknownReason = 19;

SqliteStoreOptions Options(bool normal) {
  SqliteStoreOptions options;
  options.path = "/ledger.db";
  options.key_id = kKey;
  options.vfs = MemoryVfs::Get().name();
  options.synchronous_normal = normal;
  options.merge = EarlyMerges(3);
  options.long_log_pages = 60;  // so that cuts fall into checkpoints, too
  return options;
}

// One step of one id: what the row must look like once it is acknowledged.
struct Promise {
  Key key;
  State state;
  Uuid attempt_id;
  size_t written_from = 0;  // position in the log when the step began
  size_t acknowledged = 0;  // position in the log when Commit had returned
  bool resolved = false;    // by an operator, with an entry in the audit table
};

struct History {
  std::vector<MemoryVfs::Event> log;
  std::vector<Promise> promises;
};

// A life of `steps` transactions with 1 to 4 operations each, closed and opened again now and then.
History Live(int steps, bool normal) {
  MemoryVfs& vfs = MemoryVfs::Get();
  vfs.set_logging(true);
  vfs.Load({});
  std::mt19937 random(4711);
  History history;
  std::unique_ptr<SqliteStore> store = SqliteStore::Open(Options(normal)).value();
  struct Running {
    Key key;
    Uuid attempt_id;
  };
  std::vector<Running> running;
  std::vector<Call> released;
  std::vector<Running> unknown;
  std::map<Uuid, Call> calls;
  int last_id = 0;
  for (int step = 0; step < steps; ++step) {
    if (step % 97 == 96) {  // a clean restart: the log is copied and deleted
      store.reset();
      store = SqliteStore::Open(Options(normal)).value();
    }
    const size_t from = vfs.log().size();
    std::vector<Promise> promised;
    EXPECT_TRUE(store->Start().ok());
    for (unsigned ops = 1 + static_cast<unsigned>(random() % 4); ops > 0; --ops) {
      if (!unknown.empty() && random() % 8 == 0) {
        const Running settled = unknown.back();
        unknown.pop_back();
        const bool created = random() % 2 == 0;
        EXPECT_TRUE(Execute(*store, created ? AsCreated(settled.key) : AsNotCreated(settled.key))->changed);
        promised.push_back({settled.key, created ? State::kSucceeded : State::kFailed, settled.attempt_id, 0, 0, true});
        continue;
      }
      if (!running.empty() && random() % 2 == 0) {
        const size_t at = random() % running.size();
        const Running ends = running[at];
        running.erase(running.begin() + static_cast<std::ptrdiff_t>(at));
        const FinishRequest outcomes[] = {Succeeded(ends.key), Failed(ends.key), Unknown(ends.key), Released(ends.key)};
        const FinishRequest& outcome = outcomes[random() % 4];
        EXPECT_TRUE(Execute(*store, outcome).ok());
        promised.push_back({ends.key, outcome.state, ends.attempt_id});
        if (outcome.state == State::kUnknown) unknown.push_back(ends);
        if (outcome.state == State::kReleased) released.push_back(calls[ends.key.request_id]);
        continue;
      }
      Call call;
      if (!released.empty() && random() % 3 == 0) {
        call = released.back();
        released.pop_back();
      } else {
        call.id = ++last_id;
        call.email = std::to_string(call.id) + "@example.com";
        call.caller = random() % 2 == 0 ? "one" : "two";
      }
      call.attempt = 100000 + step * 10 + static_cast<int>(ops);
      EXPECT_EQ(Execute(*store, call.request())->verdict, BeginVerdict::kGo);
      calls[Id(call.id)] = call;
      running.push_back({call.key_of(), Id(call.attempt)});
      promised.push_back({call.key_of(), State::kSending, Id(call.attempt)});
    }
    EXPECT_TRUE(store->Commit().ok());
    for (Promise& promise : promised) {
      promise.written_from = from;
      promise.acknowledged = vfs.log().size();
      history.promises.push_back(promise);
    }
    EXPECT_TRUE(store->CheckpointIfLong().ok());
  }
  history.log = vfs.log();
  vfs.set_logging(false);
  return history;
}

// Opens what is left after a cut behind the first `cut` events. Empty: everything that was acknowledged is there.
std::string Judge(const History& history, size_t cut, Disk disk) {
  MemoryVfs::Get().Load(std::move(disk));
  absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(Options(false));
  if (!store.ok()) return std::string(store.status().message());
  EXPECT_TRUE((*store)->Start().ok());
  const absl::StatusOr<size_t> recovered = Execute(**store, RecoverRequest{kUnknownReason, At(9), 100000});
  if (!recovered.ok()) return std::string(recovered.status().message());
  EXPECT_TRUE((*store)->Commit().ok());

  // What each id's last acknowledged step was, and what a step that was under way may have made of it.
  std::map<Key, const Promise*> last;
  std::map<Key, const Promise*> under_way;
  for (const Promise& promise : history.promises) {
    if (promise.acknowledged <= cut) {
      last[promise.key] = &promise;
    } else if (promise.written_from < cut) {
      under_way[promise.key] = &promise;
    }
  }
  const auto fits = [](const Promise& promise, const Record& record) {
    const State want = promise.state == State::kSending ? State::kUnknown : promise.state;
    return record.state == want && record.attempt_id == promise.attempt_id;
  };
  for (const auto& [key, promise] : last) {
    const std::vector<AuditEntry> audit = (*store)->Audit(key.request_id, 10).value();
    if (promise->resolved && audit.size() != 1) return "an acknowledged deed has no entry";
    const GetAnswer got = Execute(**store, GetRequest{key, {}}).value();
    // Deed and entry are one.
    if (!audit.empty() && got.record && got.record->state != audit[0].to) return "an entry without its deed";
    if (!got.record) return "an acknowledged row is gone";
    if (fits(*promise, *got.record)) continue;
    if (const auto other = under_way.find(key); other != under_way.end() && fits(*other->second, *got.record)) continue;
    return "an acknowledged step is gone";
  }
  return {};
}

struct Result {
  size_t cuts = 0;
  size_t broken = 0;
  std::string first;
};

Result TryCuts(const History& history, size_t most) {
  const size_t all = history.log.size();
  const size_t every = most == 0 ? 1 : std::max<size_t>(1, all / most);
  std::mt19937 random(42);
  PowerCut cut;
  Result result;
  for (size_t at = 0; at <= all; ++at) {
    if (at > 0) cut.Apply(history.log[at - 1]);
    if (random() % every != 0) continue;
    for (const bool torn : {false, true}) {
      ++result.cuts;
      const std::string what = Judge(history, at, torn ? cut.Torn(random) : cut.Dropped());
      if (what.empty()) continue;
      if (result.broken++ == 0) result.first = "cut at " + std::to_string(at) + (torn ? " torn: " : ": ") + what;
    }
  }
  return result;
}

size_t MostCuts() {
  const char* text = std::getenv("LEDGER_POWER_CUTS");
  return text != nullptr ? static_cast<size_t>(std::strtoul(text, nullptr, 10)) : 400;
}

TEST(PowerLossTest, NothingAcknowledgedIsLost) {
  const History history = Live(500, false);
  ASSERT_GT(history.promises.size(), 1000u);
  const Result result = TryCuts(history, MostCuts());
  std::printf("%zu events, %zu cuts tried, %zu promises\n", history.log.size(), result.cuts, history.promises.size());
  EXPECT_EQ(result.broken, 0u) << result.first;
  EXPECT_GE(result.cuts, 500u);
}

// The test can fail: with synchronous=NORMAL, which many would choose for speed, it does.
TEST(PowerLossTest, SynchronousNormalWouldLoseRows) {
  const Result result = TryCuts(Live(500, true), 100);
  EXPECT_GT(result.broken, 0u);
  EXPECT_NE(result.first.find("gone"), std::string::npos) << result.first;
}

}  // namespace
}  // namespace userintent::ledger
