// The ledger is asked now and then, one question at a time, and what it said ages meanwhile.
#include "server/app/unresolved_count.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <utility>
#include <vector>

#include "server/app/telemetry.h"
#include "server/ledger/memory_ledger.h"

namespace userintent {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class Later final : public Executor {
 public:
  void Post(Task task) override { tasks.push_back(std::move(task)); }
  void Run() {
    for (Task& task : std::exchange(tasks, {})) task();
  }
  std::vector<Task> tasks;
};

TEST(UnresolvedCount, AsksNowAndThenAndOneAtATime) {
  Later later;
  ledger::MemoryLedger ledger({}, 10);
  observe::Metrics metrics{{"1", "1", "1", "1"}, Telemetry::Labels()};
  UnresolvedCount count(ledger, later, metrics);
  const absl::Time created = absl::FromUnixSeconds(1'700'000'000);
  ledger::BeginRequest begin;
  begin.key = {"caller", Uuid{1}};
  begin.now = created;
  ledger.Begin(std::move(begin), later,
               [](const ledger::BeginAnswer& answer) { EXPECT_EQ(answer.verdict, ledger::BeginVerdict::kGo); });
  ledger::FinishRequest finish;
  finish.key = {"caller", Uuid{1}};
  finish.reason = 1;
  finish.now = created;
  ledger.Finish(std::move(finish), later, [](const ledger::FinishAnswer& answer) { EXPECT_TRUE(answer.committed); });
  later.Run();

  const SteadyTime start{1h};
  count.Look(start, created + absl::Seconds(10));
  count.Look(start + 1h, created + absl::Seconds(10));  // no answer yet, so no other question
  EXPECT_EQ(later.tasks.size(), 1u);
  EXPECT_THAT(metrics.Text(), HasSubstr("userintent_unresolved_requests 0\n"));
  later.Run();
  count.Look(start + 2s, created + absl::Seconds(30));
  EXPECT_EQ(later.tasks.size(), 0u);
  EXPECT_THAT(metrics.Text(), HasSubstr("userintent_unresolved_requests 1\n"));
  EXPECT_THAT(metrics.Text(), HasSubstr("userintent_unresolved_oldest_seconds 30\n"));
  count.Look(start + 3s, created + absl::Seconds(31));
  EXPECT_THAT(metrics.Text(), HasSubstr("userintent_unresolved_oldest_seconds 31\n"));
  count.Look(start + 6s, created + absl::Seconds(34));
  EXPECT_EQ(later.tasks.size(), 1u);
}

}  // namespace
}  // namespace userintent
