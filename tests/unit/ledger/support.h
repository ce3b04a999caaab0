// Helpers of the ledger's tests: invented requests, an executor that is pumped by hand, a runner for operations.
// An executor may be posted to from any thread and is pumped from the test's.
#pragma once

#include <openssl/sha.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "server/base/loop.h"
#include "server/ledger/batch_ledger.h"
#include "server/ledger/execute.h"
#include "server/ledger/ledger.h"
#include "server/ledger/sqlite_merged_index.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

inline Uuid Id(int n) {
  Uuid id{};
  id[6] = 0x40;
  for (size_t i = 0; i < 4; ++i) id[15 - i] = static_cast<uint8_t>(n >> (8 * i));
  return id;
}

// Stands for a keyed hash: another key gives another digest.
inline Digest Hash(uint64_t key_id, const std::string& what, const std::string& text) {
  const std::string all = std::to_string(key_id) + '\0' + what + '\0' + text;
  Digest digest{};
  SHA256(reinterpret_cast<const unsigned char*>(all.data()), all.size(), digest.data());
  return digest;
}

inline absl::Time At(int64_t seconds) { return absl::FromUnixSeconds(1'700'000'000 + seconds); }

constexpr uint64_t kKey = 0xfeedfacecafebeef;  // above INT64_MAX, as half of all key ids are
constexpr uint64_t kOldKey = 7;
constexpr uint64_t kOldestKey = 8;

inline Fingerprints Prints(uint64_t key_id, const std::string& email, const std::string& person,
                           const std::string& ip) {
  return {key_id, Hash(key_id, "content", email + "|" + person + "|" + ip), Hash(key_id, "person", email + person),
          Hash(key_id, "email", email)};
}

// One request of a caller. The content is e-mail, person and ip together.
struct Call {
  std::string caller = "one";
  int id = 1;
  std::string email = "a@example.com";
  std::string person = "ann";
  std::string ip = "8.8.8.8";
  std::optional<int> supersedes = std::nullopt;
  bool supersedes_others = false;
  bool allow_repeat = false;
  bool may_start = true;
  bool may_join = true;
  Admission* admission = nullptr;
  int limit = 3;
  int verification_type = 0;
  int attempt = 1000;
  int64_t at = 0;
  uint64_t key = kKey;
  std::vector<uint64_t> previous = {};

  Key key_of() const { return {caller, Id(id)}; }
  BeginRequest request() const {
    BeginRequest r;
    r.key = key_of();
    r.current = Prints(key, email, person, ip);
    for (const uint64_t one : previous) r.older.push_back(Prints(one, email, person, ip));
    r.attempt_id = Id(attempt);
    r.allow_repeat = allow_repeat;
    if (supersedes) r.supersedes = Id(*supersedes);
    r.may_supersede_others = supersedes_others;
    r.attempt_limit = limit;
    r.verification_type = verification_type;
    r.may_start = may_start;
    r.may_join = may_join;
    r.admission = admission;
    r.now = At(at);
    return r;
  }
};

inline FinishRequest Succeeded(const Key& key, const std::string& intent = "intent-1") {
  FinishRequest r;
  r.key = key;
  r.state = State::kSucceeded;
  r.sent = Sent::kYes;
  r.answer.http_status = 201;
  r.answer.confirmed = true;
  r.answer.user_intent_id = intent;
  r.answer.astra_status = "pending";
  r.answer.astra_request_id = "req-1";
  r.answer.at = At(5);
  r.now = At(5);
  return r;
}

inline FinishRequest Failed(const Key& key) {
  FinishRequest r;
  r.key = key;
  r.state = State::kFailed;
  r.sent = Sent::kYes;
  r.reason = 16;
  r.answer.http_status = 400;
  r.answer.at = At(5);
  r.now = At(5);
  return r;
}

inline FinishRequest Unknown(const Key& key, bool confirmed = false) {
  FinishRequest r;
  r.key = key;
  r.state = State::kUnknown;
  r.sent = Sent::kMaybe;
  r.reason = 19;
  r.answer.confirmed = confirmed;
  r.answer.http_status = confirmed ? 201 : 0;
  r.now = At(5);
  return r;
}

inline FinishRequest Released(const Key& key, Sent sent = Sent::kNo) {
  FinishRequest r;
  r.key = key;
  r.state = State::kReleased;
  r.sent = sent;
  r.reason = 14;
  r.now = At(5);
  return r;
}

inline ResolveRequest AsCreated(const Key& key, const std::string& intent = "intent-9", int64_t at = 20) {
  ResolveRequest r;
  r.key = key;
  r.created = intent;
  r.actor = "operator";
  r.evidence = "ticket 1";
  r.now = At(at);
  return r;
}

inline ResolveRequest AsNotCreated(const Key& key, int64_t at = 20) {
  ResolveRequest r = AsCreated(key, "", at);
  r.created.reset();
  r.not_created_reason = 20;
  return r;
}

// Proof that the POST of `attempt` made the intent, or that it made none.
inline SettleRequest ProofOf(const Key& key, const std::string& intent = "intent-7", int attempt = 1000,
                             int64_t at = 20) {
  SettleRequest r;
  r.key = key;
  r.attempt_id = Id(attempt);
  r.answer.http_status = 201;
  r.answer.confirmed = true;
  r.answer.user_intent_id = intent;
  r.answer.astra_status = "pending";
  r.answer.at = At(at);
  r.action = "settle by late answer";
  r.evidence = "HTTP status 201";
  r.now = At(at);
  return r;
}

inline SettleRequest ProofOfNone(const Key& key, State state = State::kFailed, int attempt = 1000, int64_t at = 20) {
  SettleRequest r = ProofOf(key, "", attempt, at);
  r.state = state;
  r.reason = 16;
  r.answer = {};
  r.answer.http_status = 400;
  r.answer.at = At(at);
  r.evidence = "HTTP status 400";
  return r;
}

inline Reading Said(const std::string& status, int64_t at, const std::string& user_id = "", int verification_type = 1) {
  return {status, user_id, verification_type, absl::InfinitePast(), At(at)};
}

// Operations on a store, one transaction an operation.
class Session {
  // First, because its return type is deduced.
  template <typename F>
  auto In(F f) {
    EXPECT_TRUE(store_.Start().ok());
    auto result = f();
    EXPECT_TRUE(store_.Commit().ok());
    return result;
  }

 public:
  explicit Session(Store& store) : store_(store) {}

  BeginAnswer Begin(const Call& call) {
    return In([&] { return Execute(store_, call.request()).value(); });
  }
  FinishAnswer Finish(const FinishRequest& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  absl::Status TryFinish(const FinishRequest& request) {
    return In([&] { return Execute(store_, request).status(); });
  }
  absl::Status NextAttempt(const Key& key, int attempt, Sent sent, int64_t at = 3) {
    return In([&] { return Execute(store_, NextAttemptRequest{key, Id(attempt), sent, At(at)}); });
  }
  GetAnswer Get(const Key& key) {
    return In([&] { return Execute(store_, GetRequest{key, {}}).value(); });
  }
  GetAnswer FindIntent(const std::string& caller, const std::string& intent) {
    return In([&] { return Execute(store_, GetRequest{{caller, {}}, intent}).value(); });
  }
  absl::Status RecordReading(const Key& key, const Reading& reading) {
    return In([&] { return Execute(store_, ReadingRequest{key, reading}); });
  }
  size_t Recover(int reason, size_t limit = 100) {
    return In([&] { return Execute(store_, RecoverRequest{reason, At(9), limit}).value(); });
  }
  ResolveAnswer Resolve(const ResolveRequest& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  // The transaction is committed all the same: a refusal must have written nothing.
  absl::Status TryResolve(const ResolveRequest& request) {
    return In([&] { return Execute(store_, request).status(); });
  }
  SettleAnswer Settle(const SettleRequest& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  absl::Status TrySettle(const SettleRequest& request) {
    return In([&] { return Execute(store_, request).status(); });
  }
  TraceAnswer Trace(const TraceRequest& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  SucceededAnswer ListSucceeded(const SucceededRequest& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  ChangeFeed::Answer ReadChanges(const ChangeFeed::Request& request) {
    return In([&] { return Execute(store_, request).value(); });
  }
  PurgeAnswer Purge(absl::Time before, size_t limit = 100, absl::Time released_before = absl::InfinitePast()) {
    return In([&] { return Execute(store_, PurgeRequest{before, limit, released_before}).value(); });
  }
  // Runs a whole request: Begin must say go.
  void Run(const Call& call, const std::function<FinishRequest(const Key&)>& finish) {
    ASSERT_EQ(Begin(call).verdict, BeginVerdict::kGo);
    Finish(finish(call.key_of()));
  }

 private:
  Store& store_;
};

// Runs what is posted when the test says so.
class Pump : public Executor {
 public:
  void Post(Task task) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.push_back(std::move(task));
    ready_.notify_all();
  }
  // Runs what is there; returns how many.
  size_t Drain() {
    size_t ran = 0;
    for (;;) {
      Task task;
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (tasks_.empty()) return ran;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
      ++ran;
    }
  }
  // Runs tasks until `done`; the long timeout between two of them only ends a test that hangs.
  void Until(const std::function<bool()>& done) {
    while (!done()) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
      Task task;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        ASSERT_TRUE(ready_.wait_until(lock, end, [this] { return !tasks_.empty(); })) << "no answer came";
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      task();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Task> tasks_;
};

// A directory of its own, removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "ledger_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string File(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// Keys are merged into their index as early and as slowly as can be, so that what a test does meets every stage of it.
inline MergeOptions EarlyMerges(size_t begin_at = 2) { return {.begin_at = begin_at, .at_once = 1, .faster = 0}; }

// A store under test, and what keeps it alive.
struct StoreKind {
  std::string name;
  std::function<std::unique_ptr<Store>()> make;
};
std::vector<StoreKind> StoreKinds();

struct LedgerKind {
  std::string name;
  std::function<std::shared_ptr<BatchLedger>()> make;
};
std::vector<LedgerKind> LedgerKinds();

inline constexpr size_t kWebhookLimit = 5;  // of these

inline void PrintTo(const StoreKind& kind, std::ostream* out) { *out << kind.name; }
inline void PrintTo(const LedgerKind& kind, std::ostream* out) { *out << kind.name; }

}  // namespace userintent::ledger
