// The slots and the queue behind them, by way of AdmissionControl, which locks them: order, turns, room, and that
// nothing is lost or given twice when many threads come and go.
#include "server/usecase/upstream_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "server/base/mutex.h"
#include "tests/unit/usecase/admission_fixture.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using Holds = SlotTaker::Holds;

AdmissionControl::Options OptionsOf(int limit, size_t most, int max_in_flight = 1000) {
  AdmissionControl::Options options;
  options.max_in_flight = max_in_flight;
  options.upstream.limit = {1, limit, 30s};
  options.upstream.most = most;
  return options;
}

class Taker final : public SlotTaker {
 public:
  void OnQueueNews() override { news.fetch_add(1); }
  std::atomic<int> news{0};
};

class Queue {
 public:
  Queue(int limit, size_t most, int max_in_flight = 1000) : control(OptionsOf(limit, most, max_in_flight)) {}

  enum Said { kEntered, kWaits, kOverloaded, kOther };
  Said Enter(const Account& who, const std::shared_ptr<SlotTaker>& taker) {
    const auto refusal = control.Enter(At(0s), At(30s), who, taker);
    if (!refusal) return kEntered;
    if (refusal->waits) return kWaits;
    return refusal->reason == v1::ERROR_REASON_OVERLOADED ? kOverloaded : kOther;
  }
  std::vector<std::shared_ptr<Taker>> Waiting(const Account& who, int count) {
    std::vector<std::shared_ptr<Taker>> all;
    for (int i = 0; i < count; ++i) {
      all.push_back(std::make_shared<Taker>());
      EXPECT_EQ(Enter(who, all.back()), kWaits);
    }
    return all;
  }
  Holds Of(const std::shared_ptr<Taker>& taker) { return control.Holds(*taker); }
  astra::Outcome OutcomeOf(astra::Verdict verdict) {
    astra::Outcome outcome;
    outcome.verdict = verdict;
    return outcome;
  }

  AdmissionControl control;
};

TEST(UpstreamQueue, WhatDoesNotFitWaitsInOrder) {
  Queue queue(2, 10);
  const Account who = NewAccount();
  EXPECT_EQ(queue.Enter(who, nullptr), Queue::kEntered);
  const auto holder = std::make_shared<Taker>();
  EXPECT_EQ(queue.Enter(who, holder), Queue::kEntered);
  EXPECT_EQ(queue.Of(holder), Holds::kSlot);
  const auto waiting = queue.Waiting(who, 3);
  EXPECT_EQ(queue.control.in_flight(), 5) << "a place each";
  EXPECT_EQ(who->in_flight(), 5);
  EXPECT_EQ(queue.control.upstream().waiting, 3u);
  queue.control.Leave(who, holder.get());
  EXPECT_EQ(queue.Of(waiting[0]), Holds::kSlot);
  EXPECT_EQ(waiting[0]->news, 1);
  EXPECT_EQ(queue.Of(waiting[1]), Holds::kWaits);
  queue.control.Leave(who);
  EXPECT_EQ(queue.Of(waiting[1]), Holds::kSlot);
  EXPECT_EQ(queue.Of(waiting[2]), Holds::kWaits);
  EXPECT_EQ(queue.control.upstream().slots, 2);
  for (const auto& one : waiting) queue.control.Leave(who, one.get());
  EXPECT_EQ(queue.control.in_flight(), 0);
  EXPECT_EQ(queue.control.upstream().slots, 0);
  EXPECT_EQ(queue.control.upstream().waiting, 0u);
}

TEST(UpstreamQueue, WhoMayNotWaitIsRefused) {
  Queue queue(1, 10);
  EXPECT_EQ(queue.Enter(nullptr, nullptr), Queue::kEntered);
  EXPECT_EQ(queue.Enter(nullptr, nullptr), Queue::kOverloaded);
  EXPECT_FALSE(queue.control.Look(At(0s), At(30s))) << "a call that may wait would be let in";
  EXPECT_EQ(queue.control.in_flight(), 1);
}

TEST(UpstreamQueue, AFullQueueRefusesAtOnce) {
  Queue queue(1, 2);
  const Account who = NewAccount();
  EXPECT_EQ(queue.Enter(who, nullptr), Queue::kEntered);
  const auto waiting = queue.Waiting(who, 2);
  EXPECT_EQ(queue.Enter(who, std::make_shared<Taker>()), Queue::kOverloaded);
  const auto look = queue.control.Look(At(0s), At(30s), who);
  ASSERT_TRUE(look);
  EXPECT_EQ(look->reason, v1::ERROR_REASON_OVERLOADED);
  Queue none(1, 0);
  EXPECT_EQ(none.Enter(who, nullptr), Queue::kEntered);
  EXPECT_EQ(none.Enter(who, std::make_shared<Taker>()), Queue::kOverloaded);
}

TEST(UpstreamQueue, CallersTakeTurns) {
  Queue queue(1, 100);
  const Account flood = NewAccount();
  const Account other = NewAccount();
  const Account third = NewAccount();
  const auto holder = std::make_shared<Taker>();
  EXPECT_EQ(queue.Enter(flood, holder), Queue::kEntered);
  const auto many = queue.Waiting(flood, 50);
  const auto few = queue.Waiting(other, 2);
  const auto one = queue.Waiting(third, 1);
  queue.control.Leave(flood, holder.get());
  const std::vector<std::pair<std::shared_ptr<Taker>, Account>> order = {
      {many[0], flood}, {few[0], other},  {one[0], third}, {many[1], flood},
      {few[1], other},  {many[2], flood}, {many[3], flood}};
  for (const auto& [taker, who] : order) {
    ASSERT_EQ(queue.Of(taker), Holds::kSlot);
    queue.control.Leave(who, taker.get());
  }
}

TEST(UpstreamQueue, AFullQueueMakesRoomForWhoHasLess) {
  Queue queue(1, 4);
  policy::Limits limits;
  limits.create = policy::Rate{0.001, 10};
  const Account flood = NewAccount(limits);
  const Account other = NewAccount();
  EXPECT_EQ(queue.Enter(other, nullptr), Queue::kEntered);
  const auto many = queue.Waiting(flood, 4);
  const auto few = queue.Waiting(other, 2);
  EXPECT_EQ(queue.Of(many[3]), Holds::kNothing) << "the last to come";
  EXPECT_EQ(queue.Of(many[2]), Holds::kNothing);
  EXPECT_EQ(queue.Of(many[1]), Holds::kWaits);
  EXPECT_EQ(many[3]->news, 1);
  EXPECT_EQ(queue.control.upstream().waiting, 4u);
  EXPECT_EQ(queue.Enter(other, std::make_shared<Taker>()), Queue::kOverloaded) << "it has as many";
  for (const auto& gone : {many[2], many[3]}) queue.control.Undo(flood, gone.get());
  EXPECT_EQ(flood->in_flight(), 2);
  EXPECT_EQ(queue.control.upstream().slots, 1) << "who gave way has no slot to give back";
  EXPECT_EQ(queue.Of(many[0]), Holds::kWaits) << "so nobody gets it";
  queue.control.Leave(other);
  EXPECT_EQ(queue.Of(many[0]), Holds::kSlot);
}

TEST(UpstreamQueue, NobodyGivesWayToWhoWouldThenHaveMore) {
  Queue queue(1, 3);
  const Account flood = NewAccount();
  const Account other = NewAccount();
  EXPECT_EQ(queue.Enter(flood, nullptr), Queue::kEntered);
  const auto many = queue.Waiting(flood, 2);
  const auto few = queue.Waiting(other, 1);
  EXPECT_EQ(queue.Enter(other, std::make_shared<Taker>()), Queue::kOverloaded);
  EXPECT_EQ(queue.Of(many[1]), Holds::kWaits);
}

TEST(UpstreamQueue, ThePlacesOfMaxInFlightHoldWhoWaitsToo) {
  Queue queue(1, 10, 2);
  const Account who = NewAccount();
  EXPECT_EQ(queue.Enter(who, nullptr), Queue::kEntered);
  const auto waiting = queue.Waiting(who, 1);
  EXPECT_EQ(queue.Enter(who, std::make_shared<Taker>()), Queue::kOverloaded);
  const Account other = NewAccount();
  const auto share = queue.Waiting(other, 1);
  EXPECT_EQ(queue.Enter(other, std::make_shared<Taker>()), Queue::kOverloaded);
  queue.control.Undo(who, waiting[0].get());
  queue.control.Leave(who);
  EXPECT_EQ(queue.Of(share[0]), Holds::kSlot);
}

TEST(UpstreamQueue, ALimitThatFallsTakesNothingAway) {
  Queue queue(40, 100);
  const Account who = NewAccount();
  std::vector<std::shared_ptr<Taker>> inside;
  for (int i = 0; i < 40; ++i) {
    inside.push_back(std::make_shared<Taker>());
    EXPECT_EQ(queue.Enter(who, inside.back()), Queue::kEntered);
  }
  const auto waiting = queue.Waiting(who, 5);
  queue.control.OnExchange(queue.OutcomeOf(astra::Verdict::kUnknown), At(0s), At(1s));
  EXPECT_EQ(queue.control.upstream().limit, 20);
  EXPECT_EQ(queue.control.upstream().slots, 40);
  for (int i = 0; i < 20; ++i) queue.control.Leave(who, inside[static_cast<size_t>(i)].get());
  EXPECT_EQ(queue.Of(waiting[0]), Holds::kWaits);
  queue.control.Leave(who, inside[20].get());
  EXPECT_EQ(queue.Of(waiting[0]), Holds::kSlot);
  EXPECT_EQ(queue.Of(waiting[1]), Holds::kWaits);
  // A limit that grows lets in who waits.
  for (int i = 0; i < 30; ++i) queue.control.OnExchange(queue.OutcomeOf(astra::Verdict::kCreated), At(2s), At(3s));
  EXPECT_EQ(queue.Of(waiting[1]), Holds::kSlot);
}

TEST(UpstreamQueue, WhoIsGoneIsPassedOver) {
  Queue queue(1, 2);
  const Account who = NewAccount();
  const auto holder = std::make_shared<Taker>();
  EXPECT_EQ(queue.Enter(who, holder), Queue::kEntered);
  queue.Waiting(NewAccount(), 1);  // and nobody keeps it
  const auto waiting = queue.Waiting(who, 1);
  queue.control.Leave(who, holder.get());
  EXPECT_EQ(queue.Of(waiting[0]), Holds::kSlot);
  EXPECT_EQ(queue.control.upstream().waiting, 0u);
}

TEST(UpstreamQueue, OutOfTheQueueIntoWhatHasChanged) {
  Queue queue(1, 2);
  EXPECT_FALSE(queue.control.LookAgain(At(0s), At(30s)));
  EXPECT_EQ(queue.control.LookAgain(At(0s), At(99ms))->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_EQ(queue.control.AfterQueue(At(0s)).reason, v1::ERROR_REASON_OVERLOADED);
  queue.control.HoldBack(At(0s), absl::Seconds(7));
  EXPECT_EQ(queue.control.LookAgain(At(0s), At(30s))->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  EXPECT_EQ(queue.control.AfterQueue(At(0s)).retry_after, absl::Seconds(7));
  queue.control.Drain();
  EXPECT_EQ(queue.control.LookAgain(At(0s), At(30s))->reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(queue.control.AfterQueue(At(0s)).reason, v1::ERROR_REASON_DRAINING);
}

// Threads that enter, wait, give up and leave. Afterwards nothing is held, and at no time were there more slots than
// the limit.
TEST(UpstreamQueue, ManyThreads) {
  constexpr int kLimit = 5;
  Queue queue(kLimit, 20);
  std::vector<Account> accounts;
  for (int i = 0; i < 3; ++i) accounts.push_back(NewAccount());
  std::atomic<int> inside{0}, most{0}, served{0}, gave_up{0};
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 dice(seed);
      const Account& who = accounts[seed % 3];
      for (int i = 0; i < 2000; ++i) {
        const auto taker = std::make_shared<Taker>();
        const Queue::Said said = queue.Enter(who, taker);
        if (said == Queue::kOverloaded) continue;
        bool has = said == Queue::kEntered;
        for (int patience = static_cast<int>(dice() % 50); !has && patience > 0; --patience) {
          std::this_thread::yield();
          has = taker->news > 0 && queue.Of(taker) == Holds::kSlot;
        }
        if (has) {
          const int now = inside.fetch_add(1) + 1;
          for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
          }
          if (dice() % 4 == 0) std::this_thread::yield();
          inside.fetch_sub(1);
          ++served;
        } else {
          ++gave_up;
        }
        dice() % 2 == 0 ? queue.control.Leave(who, taker.get()) : queue.control.Undo(who, taker.get());
        if (dice() % 8 == 0) {
          queue.control.OnExchange(queue.OutcomeOf(astra::Verdict::kCreated), At(0s), At(1s));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kLimit);
  EXPECT_GT(served, 1000);
  EXPECT_EQ(queue.control.in_flight(), 0);
  EXPECT_EQ(queue.control.upstream().slots, 0);
  EXPECT_EQ(queue.control.upstream().waiting, 0u);
  for (const Account& who : accounts) EXPECT_EQ(who->in_flight(), 0);
}

}  // namespace
}  // namespace userintent::usecase
