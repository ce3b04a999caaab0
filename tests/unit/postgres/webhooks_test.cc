// The queue of webhooks that replicas share: who works on which, and what a transaction sees of its own.
#include "server/postgres/webhooks.h"

#include <gmock/gmock.h>

#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "server/ledger/memory_webhooks.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using ledger::Webhook;
using ledger::WebhookQueue;
using testing::ElementsAre;
using testing::IsEmpty;
using Standing = ledger::WebhookStore::Standing;

absl::Time At(int64_t seconds) { return absl::FromUnixSeconds(1'700'000'000 + seconds); }

Webhook Hook(int n, int64_t at = 0, std::optional<int> attempt = std::nullopt) {
  Webhook webhook;
  webhook.id = absl::StrCat("hook-", n);
  webhook.type = "user_intent_updated";
  webhook.resource_id = absl::StrCat("intent-", n);
  if (attempt) webhook.attempt_id = Id(*attempt);
  webhook.received = At(at);
  return webhook;
}

class WebhooksTest : public RigTest {
 protected:
  struct Replica {
    Replica(std::unique_ptr<Connection> opened, int64_t epoch)
        : connection(std::move(opened)), webhooks({[this] { return connection.get(); }, [epoch] { return epoch; }}) {}

    absl::Status Commit() {
      const std::vector<Statement> writes = webhooks.Writes();
      if (!writes.empty()) {
        if (const auto done = connection->Transact(writes); !done.ok()) {
          webhooks.Rollback();
          return done.status();
        }
      }
      webhooks.Committed();
      return absl::OkStatus();
    }
    void Store(const Webhook& webhook) {
      EXPECT_EQ(*webhooks.StandingOf(webhook.id), Standing::kNew);
      EXPECT_TRUE(webhooks.Add(webhook).ok());
      const absl::Status s = Commit();
      EXPECT_TRUE(s.ok()) << s;
    }
    void End(int n, std::optional<int64_t> again = std::nullopt) {
      WebhookQueue::EndRequest request{absl::StrCat("hook-", n), "read", std::nullopt};
      if (again) request.again = At(*again);
      EXPECT_TRUE(webhooks.End(request).ok());
      EXPECT_TRUE(Commit().ok());
    }
    WebhookQueue::NextAnswer Next(int64_t now, size_t limit = 100) {
      auto answer = webhooks.Next(At(now), limit);
      EXPECT_TRUE(answer.ok()) << answer.status();
      return *std::move(answer);
    }
    std::vector<std::string> Due(int64_t now, size_t limit = 100) {
      std::vector<std::string> ids;
      for (const WebhookQueue::Due& due : Next(now, limit).due) ids.push_back(due.webhook.id);
      return ids;
    }

    std::unique_ptr<Connection> connection;
    Webhooks webhooks;
  };

  void SetUp() override {
    RigTest::SetUp();
    if (c_ == nullptr) return;
    a_ = std::make_unique<Replica>(Connect(), 1);
    b_ = std::make_unique<Replica>(Connect(), 2);
  }
  void LetClaimsEnd() { Do("UPDATE webhook SET claimed_until = 1"); }

  std::unique_ptr<Replica> a_;
  std::unique_ptr<Replica> b_;
};

TEST_F(WebhooksTest, WhoStoredItWorksOnItFirst) {
  a_->Store(Hook(1, 10, 1000));
  EXPECT_THAT(b_->Due(20), IsEmpty());
  EXPECT_EQ(b_->Next(20).waiting, 1U);
  EXPECT_EQ(b_->Next(20).oldest, At(10));
  EXPECT_FALSE(b_->Next(20).next) << "or the other one would look again and again";
  EXPECT_EQ(*b_->webhooks.StandingOf("hook-1"), Standing::kWaits);
  const WebhookQueue::NextAnswer answer = a_->Next(20);
  ASSERT_EQ(answer.due.size(), 1U);
  EXPECT_EQ(answer.due[0].webhook.attempt_id, Id(1000));
  EXPECT_EQ(answer.due[0].webhook.resource_id, "intent-1");
  EXPECT_THAT(a_->Due(20), ElementsAre("hook-1")) << "it stays due until it is ended";
}

TEST_F(WebhooksTest, AClaimThatEndedIsTakenOver) {
  a_->Store(Hook(1));
  LetClaimsEnd();
  EXPECT_THAT(b_->Due(20), ElementsAre("hook-1"));
  EXPECT_THAT(a_->Due(20), IsEmpty()) << "the other one works on it";
  EXPECT_GT(Number("SELECT claimed_until - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM webhook"),
            30'000'000);
  b_->End(1);
  LetClaimsEnd();
  EXPECT_THAT(a_->Due(20), IsEmpty());
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-1"), Standing::kDone);
}

TEST_F(WebhooksTest, AClaimIsRenewedWhileItIsHandedOut) {
  a_->Store(Hook(1));
  Do("UPDATE webhook SET claimed_until = claimed_until - 40000000");  // 20 s are left
  EXPECT_THAT(a_->Due(20), ElementsAre("hook-1"));
  EXPECT_GT(Number("SELECT claimed_until - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM webhook"),
            30'000'000);
}

TEST_F(WebhooksTest, WhatAnotherOneTakesAtThisMomentIsLeftToIt) {
  a_->Store(Hook(1));
  a_->Store(Hook(2, 1));
  LetClaimsEnd();
  const auto other = Connect();
  Do(*other, "BEGIN; UPDATE webhook SET claimed_by = 3, claimed_until = claimed_until WHERE webhook_id = 'hook-1'");
  EXPECT_THAT(b_->Due(20), ElementsAre("hook-2")) << "and is not waited for";
  Do(*other, "ROLLBACK");
  EXPECT_THAT(b_->Due(20), ElementsAre("hook-1", "hook-2"));
}

TEST_F(WebhooksTest, StoredByTwoItIsThereOnce) {
  EXPECT_TRUE(a_->webhooks.Add(Hook(1, 10)).ok());
  EXPECT_TRUE(b_->webhooks.Add(Hook(1, 11)).ok());
  EXPECT_TRUE(b_->webhooks.Add(Hook(2, 11)).ok());
  EXPECT_TRUE(a_->Commit().ok());
  EXPECT_TRUE(b_->Commit().ok());
  EXPECT_EQ(Number("SELECT count(*) FROM webhook"), 2);
  EXPECT_THAT(a_->Due(20), ElementsAre("hook-1"));
  EXPECT_THAT(b_->Due(20), ElementsAre("hook-2"));
}

TEST_F(WebhooksTest, AnEndByWhoLostItsClaimCountsAndChangesNothingThatIsDone) {
  a_->Store(Hook(1));
  LetClaimsEnd();
  EXPECT_THAT(b_->Due(20), ElementsAre("hook-1"));
  a_->End(1);
  b_->End(1, 60);  // it found less
  EXPECT_EQ(*b_->webhooks.StandingOf("hook-1"), Standing::kDone);
  EXPECT_EQ(Number("SELECT tries FROM webhook"), 0);
}

TEST_F(WebhooksTest, WhatWaitsInATransactionIsSeenByItselfAlone) {
  EXPECT_TRUE(a_->webhooks.Add(Hook(1, 10)).ok());
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-1"), Standing::kWaits);
  EXPECT_EQ(*a_->webhooks.Waiting(), 1U);
  EXPECT_EQ(*b_->webhooks.StandingOf("hook-1"), Standing::kNew);
  a_->webhooks.Rollback();
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-1"), Standing::kNew);
  EXPECT_EQ(*a_->webhooks.Waiting(), 0U);
  EXPECT_THAT(a_->webhooks.Writes(), IsEmpty());
}

// A batch holds the end of one turn, and the look for the next.
TEST_F(WebhooksTest, WhatIsEndedInTheSameTransactionIsNotHandedOutAgain) {
  a_->Store(Hook(1));
  a_->Store(Hook(2, 1));
  EXPECT_TRUE(a_->webhooks.End({"hook-1", "read", std::nullopt}).ok());
  EXPECT_TRUE(a_->webhooks.End({"hook-2", "late", At(60)}).ok());
  EXPECT_THAT(a_->Due(20), IsEmpty());
  EXPECT_EQ(a_->Next(20).next, At(60));
  EXPECT_EQ(a_->Next(20).waiting, 1U);
  EXPECT_TRUE(a_->Commit().ok());
  EXPECT_THAT(a_->Due(60), ElementsAre("hook-2"));
  EXPECT_EQ(a_->Next(60).due[0].tries, 1);
}

TEST_F(WebhooksTest, SignsOfLifeOfAllMakeOnePeriod) {
  for (int at = 0; at <= 60; at += 20) {
    EXPECT_TRUE((at % 40 == 0 ? a_ : b_)->webhooks.ReceiverAlive(At(at)).ok());
    EXPECT_TRUE((at % 40 == 0 ? a_ : b_)->Commit().ok());
  }
  EXPECT_EQ(Number("SELECT count(*) FROM receiver_period"), 1);
  EXPECT_EQ(Number("SELECT until - began FROM receiver_period"), 60'000'000);
  EXPECT_TRUE(a_->webhooks.ReceiverAlive(At(100)).ok());
  EXPECT_TRUE(a_->Commit().ok());
  EXPECT_EQ(Number("SELECT count(*) FROM receiver_period"), 2);
}

TEST_F(WebhooksTest, OldDoneOnesAreForgotten) {
  for (int n = 1; n <= 5; ++n) a_->Store(Hook(n, n));
  for (const int n : {1, 2, 3, 5}) a_->End(n);
  EXPECT_EQ(*a_->webhooks.ForgetWebhooks(At(5), 2), 2U);
  EXPECT_EQ(*a_->webhooks.ForgetWebhooks(At(5), 2), 1U);
  EXPECT_EQ(*a_->webhooks.ForgetWebhooks(At(5), 2), 0U);
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-1"), Standing::kNew);
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-4"), Standing::kWaits);
  EXPECT_EQ(*a_->webhooks.StandingOf("hook-5"), Standing::kDone);
}

TEST_F(WebhooksTest, WithoutAConnectionNothingIsKnown) {
  a_->connection.reset();
  EXPECT_TRUE(absl::IsUnavailable(a_->webhooks.StandingOf("hook-1").status()));
  EXPECT_TRUE(absl::IsUnavailable(a_->webhooks.Next(At(1), 1).status()));
  EXPECT_TRUE(absl::IsUnavailable(a_->webhooks.Waiting().status()));
}

// One replica alone keeps what the queue in memory keeps.
TEST_F(WebhooksTest, AgreeWithTheQueueInMemory) {
  ledger::MemoryWebhooks memory;
  std::mt19937 dice(7);
  const auto below = [&dice](int end) { return static_cast<int>(dice() % static_cast<unsigned>(end)); };
  int64_t deeds = 0;
  for (int step = 0; step < 300; ++step) {
    for (int left = below(4); left >= 0; --left) {
      const int kind = below(6);
      Webhook hook = Hook(below(30), step - below(5), below(2) == 0 ? std::optional<int>(below(3)) : std::nullopt);
      hook.received += absl::Microseconds(++deeds);
      WebhookQueue::EndRequest end{hook.id, "read", std::nullopt};
      if (below(2) == 0) end.again = At(step + below(20));
      const absl::Time now = At(step + below(90));
      const auto limit = static_cast<size_t>(below(6));
      const auto deed = [&](ledger::WebhookStore& webhooks) -> std::string {
        std::ostringstream said;
        const Standing standing = webhooks.StandingOf(hook.id).value();
        said << static_cast<int>(standing) << ' ';
        if (kind < 3) {
          if (standing == Standing::kNew) said << webhooks.Add(hook);
        } else if (kind < 5) {
          said << webhooks.End(end);
        } else {
          said << webhooks.ReceiverAlive(now);
        }
        const WebhookQueue::NextAnswer next = webhooks.Next(now, limit).value();
        for (const WebhookQueue::Due& due : next.due) said << ' ' << due.webhook.id << ' ' << due.tries;
        said << ' ' << absl::ToUnixMicros(next.next.value_or(absl::UnixEpoch())) << ' ' << next.waiting << ' '
             << absl::ToUnixMicros(next.oldest);
        return said.str();
      };
      ASSERT_EQ(deed(a_->webhooks), deed(memory)) << "step " << step;
    }
    if (below(4) == 0) {
      memory.Rollback();
      a_->webhooks.Rollback();
    } else {
      memory.Commit();
      ASSERT_TRUE(a_->Commit().ok());
    }
  }
}

}  // namespace
}  // namespace userintent::postgres
