// The hub between threads: one that commits, and several on which streams come, take what there is, and go.
#include "server/usecase/watch_hub.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/mutex.h"

namespace userintent::usecase {
namespace {

constexpr int kRequests = 50;
constexpr int kChanges = 20'000;
constexpr int kThreads = 3;

Uuid RequestId(int n) {
  Uuid id{};
  id[0] = static_cast<uint8_t>(n);
  return id;
}

class Feed final : public ledger::ChangeFeed {
 public:
  uint64_t ledger_id() const override { return 1; }
  int64_t revision() const override { return committed; }
  void SetListener(ledger::ChangeListener*) override {}
  void ReadChanges(Request, Executor&, Done) override { ADD_FAILURE() << "a hub reads"; }

  std::atomic<int64_t> committed{0};
};

// Tasks for one thread.
class Queue final : public Executor {
 public:
  void Post(Task task) override {
    const MutexLock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  void Run() {
    std::vector<Task> tasks;
    {
      const MutexLock lock(mutex_);
      tasks.swap(tasks_);
    }
    for (Task& task : tasks) task();
  }

 private:
  Mutex mutex_;
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
};

class WatchHubThreadsTest : public testing::Test {
 protected:
  // Commits, and tells the hub of several commits at a time.
  void Commit() {
    std::vector<ledger::Change> changes;
    for (int64_t revision = 1; revision <= kChanges; ++revision) {
      const int n = static_cast<int>(revision * 7 % kRequests);
      last_[static_cast<size_t>(n)] = revision;
      changes.push_back({revision, {"a", RequestId(n)}});
      feed_.committed = revision;
      if (revision % 3 != 0 && revision != kChanges) continue;
      hub_.OnChanges(changes);
      changes.clear();
    }
    done_ = true;
  }

  // Follows everything or some, and begins anew from time to time. In the end each request that it follows, and that
  // changed after it began, has been looked at after its last change.
  void Follow(int thread) {
    Queue queue;
    std::vector<Uuid> ids;
    for (int n = thread; thread > 0 && n < kRequests; n += kThreads) ids.push_back(RequestId(n));
    for (int round = 0; !done_; ++round) {
      std::array<int64_t, kRequests> seen{};
      bool woken = false;
      WatchHub::Refusal refusal{};
      const auto seat = hub_.Enter(
          "a", ids, queue, [&woken] { woken = true; }, &refusal);
      ASSERT_NE(seat, nullptr);
      const int64_t began = seat->Restart();
      int64_t position = began;
      const auto take = [&] {
        for (;;) {
          const WatchHub::Seat::News news = seat->Take(position, 4);
          ASSERT_LE(news.after, position) << "fewer requests than a seat keeps, so it knows all";
          if (news.entries.empty()) {
            position = std::max(position, news.upto);
            return;
          }
          for (const WatchHub::Entry& entry : news.entries) {
            position = std::max(position, entry.revision);
            seen[entry.request_id[0]] = last_[entry.request_id[0]];
          }
        }
      };
      take();
      // Some end while they are told of something.
      for (int turns = round % 2 == 0 ? 200 : INT32_MAX; turns > 0 && !(done_ && position >= kChanges); --turns) {
        queue.Run();
        if (std::exchange(woken, false) || done_) take();
        std::this_thread::yield();
      }
      if (!done_ || position < kChanges) continue;
      for (int n = 0; n < kRequests; ++n) {
        const bool follows = thread == 0 || n % kThreads == thread;
        const int64_t last = last_[static_cast<size_t>(n)];
        if (follows && last > began) {
          EXPECT_EQ(seen[static_cast<size_t>(n)], last) << n;
        }
      }
    }
  }

  Feed feed_;
  WatchHub hub_{feed_, {}};
  std::array<std::atomic<int64_t>, kRequests> last_{};
  std::atomic<bool> done_{false};
};

TEST_F(WatchHubThreadsTest, NothingIsMissed) {
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) threads.emplace_back([this, i] { Follow(i); });
  Commit();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(hub_.streams(), 0U);
}

TEST_F(WatchHubThreadsTest, ADrainReachesEverySeat) {
  Queue queue;
  int woken = 0;
  WatchHub::Refusal refusal{};
  std::vector<std::shared_ptr<WatchHub::Seat>> seats;
  seats.push_back(hub_.Enter(
      "a", {}, queue, [&] { ++woken; }, &refusal));
  seats.push_back(hub_.Enter(
      "a", {RequestId(1), RequestId(2)}, queue, [&] { ++woken; }, &refusal));
  seats.push_back(hub_.Enter(
      "b", {RequestId(1)}, queue, [&] { ++woken; }, &refusal));
  std::thread([this] { hub_.Drain(); }).join();
  queue.Run();
  EXPECT_EQ(woken, 3);
  EXPECT_TRUE(hub_.draining());
  EXPECT_EQ(hub_.Enter(
                "c", {}, queue, [] {}, &refusal),
            nullptr);
  EXPECT_EQ(refusal, WatchHub::Refusal::kDraining);
}

}  // namespace
}  // namespace userintent::usecase
