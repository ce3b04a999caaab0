// Who gets a place: the order of the checks, what each refusal costs, and fair shares among many callers.
#include "server/usecase/admission_control.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/usecase/admission_fixture.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using policy::CallerAccount;

v1::ErrorReason ReasonOf(const std::optional<AdmissionControl::Refusal>& refusal) {
  return refusal ? refusal->reason : v1::ERROR_REASON_UNSPECIFIED;
}

class Gate {
 public:
  explicit Gate(int max_in_flight) : control({max_in_flight, 100ms}) {}
  v1::ErrorReason Enter(const Account& who, SteadyClock::duration now = 0s, SteadyClock::duration left = 30s) {
    return ReasonOf(control.Enter(At(now), At(now + left), who));
  }
  // How many enter before one is refused.
  int Fill(const Account& who, SteadyClock::duration now = 0s) {
    int entered = 0;
    while (Enter(who, now) == v1::ERROR_REASON_UNSPECIFIED) ++entered;
    return entered;
  }
  AdmissionControl control;
};

TEST(AdmissionControl, OneCallerAloneGetsAllPlaces) {
  for (const Account& who : {NewAccount(), Account()}) {
    Gate gate(10);
    EXPECT_EQ(gate.Fill(who), 10);
    const auto refused = gate.control.Enter(At(0s), At(30s), who);
    EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_OVERLOADED);
    EXPECT_EQ(refused->retry_after, absl::Seconds(1));
    gate.control.Leave(who);
    EXPECT_EQ(gate.Fill(who), 1);
    EXPECT_EQ(gate.control.in_flight(), 10);
  }
}

TEST(AdmissionControl, WhoFloodsTakesNobodysShare) {
  Gate gate(10);
  const Account a = NewAccount();
  const Account b = NewAccount();
  const Account c = NewAccount();
  EXPECT_EQ(gate.Fill(a), 10);
  EXPECT_EQ(gate.Fill(b), 5) << "half, beyond the gate";
  EXPECT_EQ(gate.Enter(a), v1::ERROR_REASON_OVERLOADED);
  for (int i = 0; i < 5; ++i) {
    gate.control.Leave(a);
    EXPECT_EQ(gate.Enter(a), v1::ERROR_REASON_OVERLOADED) << "makes room as its calls end";
  }
  EXPECT_EQ(gate.control.in_flight(), 10);
  gate.control.Leave(b);
  EXPECT_EQ(gate.Enter(a), v1::ERROR_REASON_UNSPECIFIED) << "a place that is free is anybody's";
  EXPECT_EQ(gate.Enter(b), v1::ERROR_REASON_UNSPECIFIED) << "and B has its share all the same";
  EXPECT_EQ(gate.Enter(b), v1::ERROR_REASON_OVERLOADED);
  EXPECT_EQ(gate.Fill(c), 3) << "a third";
}

TEST(AdmissionControl, NeverMoreThanTwiceAsMany) {
  Gate gate(10);
  std::vector<Account> all;
  for (int i = 0; i < 40; ++i) {
    all.push_back(NewAccount());
    gate.Fill(all.back());
    EXPECT_LE(gate.control.in_flight(), 20);
  }
  EXPECT_EQ(gate.control.in_flight(), 20);
  EXPECT_EQ(gate.Enter(NewAccount()), v1::ERROR_REASON_OVERLOADED);
}

TEST(AdmissionControl, WhoWasRefusedHasAShareForASecond) {
  Gate gate(4);
  const Account flood = NewAccount();
  const Account other = NewAccount();
  EXPECT_EQ(gate.Fill(flood), 4);
  EXPECT_EQ(gate.Fill(other), 2);
  gate.control.Leave(other);
  gate.control.Leave(other);  // and was refused at 0s
  const Account third = NewAccount();
  EXPECT_EQ(gate.Fill(third, 999ms), 1) << "4 / 3";
  gate.control.Leave(third);
  EXPECT_EQ(gate.Fill(third, 2s), 2) << "4 / 2: the other one has gone";
}

TEST(AdmissionControl, TheOrderOfItsChecks) {
  policy::Limits limits;
  limits.create = policy::Rate{1, 1};
  limits.max_in_flight = 2;
  Gate gate(1);
  const Account full = NewAccount();
  EXPECT_EQ(gate.Fill(full), 1);
  // `who` is below its share; the gate is full for `full` alone.
  EXPECT_EQ(gate.Enter(full, 0s, 1ms), v1::ERROR_REASON_OVERLOADED) << "before the deadline";
  const Account who = NewAccount(limits);
  EXPECT_EQ(gate.Enter(who, 0s, 99ms), v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  gate.control.HoldBack(At(0s), absl::Seconds(3));
  EXPECT_EQ(gate.Enter(full, 0s, 1ms), v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  gate.control.Drain();
  EXPECT_EQ(gate.Enter(full, 0s, 1ms), v1::ERROR_REASON_DRAINING);
  EXPECT_FALSE(who->TakeCreate(At(0s))) << "none of them cost the token";
  const auto refused = gate.control.Enter(At(250ms), At(251ms), who);
  EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_EQ(refused->retry_after, absl::Milliseconds(750));
  EXPECT_EQ(gate.control.in_flight(), 1);
}

TEST(AdmissionControl, NoRefusalCostsATokenAndNoLookDoes) {
  policy::Limits limits;
  limits.create = policy::Rate{0.001, 1};
  const Account who = NewAccount(limits);
  Gate gate(1);
  const Account full = NewAccount();
  gate.Fill(full);
  gate.Fill(NewAccount());  // twice as many
  EXPECT_EQ(gate.Enter(who), v1::ERROR_REASON_OVERLOADED);
  gate.control.Leave(full);
  EXPECT_EQ(gate.Enter(who, 0s, 1ms), v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(gate.control.Look(At(0s), At(30s), who));
  EXPECT_EQ(gate.Enter(who), v1::ERROR_REASON_UNSPECIFIED);
  gate.control.Undo(who);
  EXPECT_EQ(gate.Enter(who), v1::ERROR_REASON_UNSPECIFIED) << "one that did not begin gave its token back";
  gate.control.Leave(who);
  EXPECT_EQ(ReasonOf(gate.control.Look(At(0s), At(30s), who)), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_EQ(gate.Enter(who), v1::ERROR_REASON_CALLER_RATE_LIMITED);
}

TEST(AdmissionControl, ARulesPlacesAreTheCallersOwnLimit) {
  policy::Limits limits;
  limits.create = policy::Rate{0.001, 10};
  limits.max_in_flight = 2;
  const Account who = NewAccount(limits);
  Gate gate(10);
  EXPECT_EQ(gate.Fill(who), 2);
  const auto refused = gate.control.Enter(At(0s), At(30s), who);
  EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_EQ(refused->retry_after, absl::Seconds(1));
  gate.control.Leave(who);
  EXPECT_EQ(gate.Fill(who), 1) << "the refusals cost no token";
  EXPECT_EQ(gate.Fill(NewAccount()), 8);

  limits.enforce = false;
  const Account tried = NewAccount(limits);
  Gate wide(20);
  EXPECT_EQ(wide.Fill(tried), 20) << "what is not enforced is held back by the gate alone";
}

// Random callers come and go, on one clock. A caller below its share is never refused while there are fewer than twice
// as many calls as places; nobody has more than there is; in the end nothing is left.
TEST(AdmissionControl, FairWhateverHappens) {
  std::mt19937_64 random(13);
  const auto below = [&random](int n) { return static_cast<int>(random() % static_cast<uint64_t>(n)); };
  for (int round = 0; round < 200; ++round) {
    const int most = 1 + below(12);
    Gate gate(most);
    const int n = 1 + below(6);
    std::vector<Account> callers;
    std::vector<int> held(static_cast<size_t>(n), 0);
    std::vector<SteadyClock::duration> refused(static_cast<size_t>(n), -10s);
    for (int i = 0; i < n; ++i) callers.push_back(NewAccount());
    SteadyClock::duration now = 0s;
    int total = 0;
    for (int step = 0; step < 400; ++step) {
      now += std::chrono::milliseconds(below(50));
      const auto i = static_cast<size_t>(below(3) == 0 ? below(n) : 0);  // the first one floods
      if (below(5) < 3) {
        int active = 0;
        for (size_t j = 0; j < held.size(); ++j) active += held[j] > 0 || j == i || now - refused[j] < 1s;
        const int share = std::max(1, most / active);
        const bool room = total < most || (total < 2 * most && held[i] < share);
        const v1::ErrorReason reason = gate.Enter(callers[i], now);
        ASSERT_EQ(reason, room ? v1::ERROR_REASON_UNSPECIFIED : v1::ERROR_REASON_OVERLOADED)
            << "round " << round << ": " << held[i] << " of " << total << ", " << most << " places, share " << share;
        if (room) {
          ++held[i];
          ++total;
        } else {
          refused[i] = now;
        }
      } else if (held[i] > 0) {
        below(2) == 0 ? gate.control.Leave(callers[i]) : gate.control.Undo(callers[i]);
        --held[i];
        --total;
      }
      ASSERT_EQ(gate.control.in_flight(), total);
      ASSERT_LE(total, 2 * most);
      ASSERT_EQ(callers[i]->in_flight(), held[i]);
    }
    for (size_t i = 0; i < held.size(); ++i) {
      while (held[i]-- > 0) gate.control.Leave(callers[i]);
      EXPECT_EQ(callers[i]->in_flight(), 0);
    }
    EXPECT_EQ(gate.control.in_flight(), 0);
    EXPECT_EQ(gate.Fill(callers[0], now + 2s), most) << "alone again: all of it";
  }
}

TEST(AdmissionControl, AnyThread) {
  Gate gate(8);
  std::vector<Account> callers = {NewAccount(), NewAccount(), NewAccount()};
  std::atomic<int> most{0};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const Account& who = callers[t % callers.size()];
      std::deque<int> held;
      for (int i = 0; i < 5000; ++i) {
        if (i % 3 != 2) {
          if (gate.Enter(who) == v1::ERROR_REASON_UNSPECIFIED) held.push_back(i);
        } else if (!held.empty()) {
          held.pop_front();
          gate.control.Leave(who);
        }
        int seen = most.load();
        while (seen < gate.control.in_flight() && !most.compare_exchange_weak(seen, gate.control.in_flight())) {
        }
        if (held.size() > 3) {
          for (; !held.empty(); held.pop_front()) gate.control.Undo(who);
        }
      }
      for (; !held.empty(); held.pop_front()) gate.control.Leave(who);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(gate.control.in_flight(), 0);
  EXPECT_LE(most.load(), 16);
  for (const Account& who : callers) EXPECT_EQ(who->in_flight(), 0);
}

}  // namespace
}  // namespace userintent::usecase
