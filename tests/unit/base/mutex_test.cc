// That the mutex excludes, and that waits end when they should. What it may guard is checked by clang in `make lint`.
#include "server/base/mutex.h"

#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace userintent {
namespace {

TEST(Mutex, OneThreadAtATime) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10'000; ++n) {
        const MutexLock lock(mutex);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 40'000);
}

TEST(Mutex, ALockMayBeGivenUpForAWhile) {
  Mutex mutex;
  const auto is_free = [&mutex] {
    bool got = false;
    std::thread([&] {
      if (!mutex.TryLock()) return;
      got = true;
      mutex.Unlock();
    }).join();
    return got;
  };
  {
    MutexLock lock(mutex);
    EXPECT_FALSE(is_free());
    lock.Unlock();
    EXPECT_TRUE(is_free());
    lock.Lock();
    EXPECT_FALSE(is_free());
    lock.Unlock();  // and so it is given back once
  }
  EXPECT_TRUE(is_free());
}

TEST(CondVar, WaitsUntilItIsTold) {
  Mutex mutex;
  CondVar changed;
  bool asked = false;
  bool answered = false;
  std::thread other([&] {
    const MutexLock lock(mutex);
    while (!asked) changed.Wait(mutex);
    answered = true;
    changed.NotifyAll();
  });
  {
    const MutexLock lock(mutex);
    asked = true;
    changed.NotifyAll();
    while (!answered) changed.Wait(mutex);
  }
  other.join();
}

TEST(CondVar, EndsWhenTheTimeHasCome) {
  Mutex mutex;
  CondVar never;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  const MutexLock lock(mutex);
  while (never.WaitUntil(mutex, end)) continue;
  EXPECT_GE(std::chrono::steady_clock::now(), end);
}

}  // namespace
}  // namespace userintent
