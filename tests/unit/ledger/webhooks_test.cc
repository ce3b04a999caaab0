// The queue of webhooks, the same for every ledger; what a SQLite file keeps of it; and what operators are shown.
#include <sqlite3.h>

#include <filesystem>
#include <random>
#include <sstream>

#include "gmock/gmock.h"
#include "server/ledger/memory_store.h"
#include "server/ledger/sqlite_ledger.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Invented; `n` also makes the ids.
Webhook Hook(int n, int64_t at, std::optional<int> attempt = std::nullopt) {
  Webhook webhook;
  webhook.id = "hook-" + std::to_string(n);
  webhook.type = "user_intent_updated";
  webhook.resource_id = "intent-" + std::to_string(n);
  if (attempt) webhook.attempt_id = Id(*attempt);
  webhook.received = At(at);
  return webhook;
}

std::string Show(const Webhook& webhook) {
  std::ostringstream out;
  out << webhook.id << ' ' << webhook.type << ' ' << webhook.resource_id << ' '
      << (webhook.attempt_id ? UuidText(*webhook.attempt_id) : "-") << ' ' << absl::ToUnixMicros(webhook.received);
  return out.str();
}

// Calls of a queue that wait for their answer.
class Calls {
 public:
  void Use(WebhookQueue* queue) { queue_ = queue; }

  Receipt Receive(const Webhook& webhook) {
    std::optional<Receipt> answer;
    queue_->Receive(webhook, pump_, [&](Receipt receipt) {
      EXPECT_FALSE(answer) << "answered twice";
      answer = receipt;
    });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }
  WebhookQueue::NextAnswer Next(int64_t now, size_t limit = 100) {
    std::optional<WebhookQueue::NextAnswer> answer;
    queue_->Next(At(now), limit, pump_, [&](WebhookQueue::NextAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  std::vector<std::string> Due(int64_t now, size_t limit = 100) {
    std::vector<std::string> ids;
    for (const WebhookQueue::Due& due : Next(now, limit).due) ids.push_back(due.webhook.id);
    return ids;
  }
  bool End(int n, const std::string& result, std::optional<int64_t> again = std::nullopt) {
    std::optional<bool> answer;
    WebhookQueue::EndRequest request{"hook-" + std::to_string(n), result, std::nullopt};
    if (again) request.again = At(*again);
    queue_->End(std::move(request), pump_, [&](bool committed) { answer = committed; });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }

 private:
  Pump pump_;
  WebhookQueue* queue_ = nullptr;
};

class WebhookQueueTest : public testing::TestWithParam<LedgerKind>, protected Calls {
 protected:
  WebhookQueueTest() { Use(queue_.get()); }
  const std::shared_ptr<WebhookQueue> queue_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(Ledger, WebhookQueueTest, testing::ValuesIn(LedgerKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(WebhookQueueTest, ItIsStoredOnceAndKnownFromThenOn) {
  EXPECT_EQ(Receive(Hook(1, 10)), Receipt::kStored);
  EXPECT_EQ(Receive(Hook(1, 11)), Receipt::kWaits);
  EXPECT_TRUE(End(1, "read"));
  EXPECT_EQ(Receive(Hook(1, 12)), Receipt::kDone);
  EXPECT_THAT(Due(1000), IsEmpty());
}

TEST_P(WebhookQueueTest, EverythingThatIsKeptComesBack) {
  Receive(Hook(1, 10, 1000));
  Receive(Hook(2, 11));
  const WebhookQueue::NextAnswer answer = Next(11);
  ASSERT_TRUE(answer.available);
  ASSERT_EQ(answer.due.size(), 2U);
  EXPECT_EQ(Show(answer.due[0].webhook), Show(Hook(1, 10, 1000)));
  EXPECT_EQ(Show(answer.due[1].webhook), Show(Hook(2, 11)));
  EXPECT_EQ(answer.due[0].tries, 0);
  EXPECT_EQ(answer.waiting, 2U);
  EXPECT_EQ(answer.oldest, At(10));
  EXPECT_FALSE(answer.next);
}

// A repeat has no say in what was stored: were it otherwise, a replay could move an attempt id.
TEST_P(WebhookQueueTest, ARepeatChangesNothing) {
  Receive(Hook(1, 10, 1000));
  Webhook other = Hook(1, 20, 2000);
  other.resource_id = "another";
  EXPECT_EQ(Receive(other), Receipt::kWaits);
  const WebhookQueue::NextAnswer answer = Next(30);
  ASSERT_EQ(answer.due.size(), 1U);
  EXPECT_EQ(Show(answer.due[0].webhook), Show(Hook(1, 10, 1000)));
}

TEST_P(WebhookQueueTest, WhatIsPutBackIsDueThen) {
  Receive(Hook(1, 10));
  Receive(Hook(2, 11));
  EXPECT_TRUE(End(1, "", 60));
  EXPECT_THAT(Due(59), ElementsAre("hook-2"));
  WebhookQueue::NextAnswer answer = Next(59);
  EXPECT_EQ(answer.next, At(60));
  EXPECT_EQ(answer.waiting, 2U);
  EXPECT_EQ(answer.oldest, At(10));
  answer = Next(60);
  ASSERT_EQ(answer.due.size(), 2U);
  EXPECT_EQ(answer.due[1].webhook.id, "hook-1");
  EXPECT_EQ(answer.due[1].tries, 1);
  EXPECT_EQ(Receive(Hook(1, 61)), Receipt::kWaits);
  EXPECT_TRUE(End(1, "", 70));
  EXPECT_EQ(Next(100).due[1].tries, 2);
}

TEST_P(WebhookQueueTest, NextGivesSoManyAndSaysThatThereAreMore) {
  for (const int n : {3, 1, 2}) Receive(Hook(n, 10 + n));
  EXPECT_THAT(Due(100, 2), ElementsAre("hook-1", "hook-2"));
  EXPECT_EQ(Next(100, 2).next, At(13));
  EXPECT_FALSE(Next(100, 3).next);
  EXPECT_THAT(Due(10), IsEmpty());
  EXPECT_EQ(Next(10).next, At(11));
}

TEST_P(WebhookQueueTest, AnEmptyQueue) {
  const WebhookQueue::NextAnswer answer = Next(1);
  EXPECT_TRUE(answer.available);
  EXPECT_EQ(answer.waiting, 0U);
  EXPECT_EQ(answer.oldest, absl::InfiniteFuture());
  EXPECT_FALSE(answer.next);
}

TEST_P(WebhookQueueTest, AnEndOfWhatIsDoneOrUnknownChangesNothing) {
  EXPECT_TRUE(End(9, "read"));
  Receive(Hook(1, 10));
  EXPECT_TRUE(End(1, "settled"));
  EXPECT_TRUE(End(1, "", 60));
  EXPECT_EQ(Receive(Hook(1, 11)), Receipt::kDone);
  EXPECT_EQ(Next(100).waiting, 0U);
  // The ends that did nothing have not made room either.
  for (int n = 2; n < 2 + static_cast<int>(kWebhookLimit); ++n) EXPECT_EQ(Receive(Hook(n, 12)), Receipt::kStored);
  EXPECT_EQ(Receive(Hook(9, 12)), Receipt::kFull);
}

TEST_P(WebhookQueueTest, AFullQueueStillKnowsWhatItHolds) {
  const int limit = static_cast<int>(kWebhookLimit);
  for (int n = 0; n < limit; ++n) EXPECT_EQ(Receive(Hook(n, 10)), Receipt::kStored);
  EXPECT_EQ(Receive(Hook(limit, 10)), Receipt::kFull);
  EXPECT_EQ(Receive(Hook(0, 10)), Receipt::kWaits);
  End(0, "", 60);
  EXPECT_EQ(Receive(Hook(limit, 10)), Receipt::kFull) << "what was put back still waits";
  End(0, "read");
  EXPECT_EQ(Receive(Hook(0, 10)), Receipt::kDone);
  EXPECT_EQ(Receive(Hook(limit, 10)), Receipt::kStored);
  EXPECT_EQ(Receive(Hook(limit + 1, 10)), Receipt::kFull);
}

// --- both stores under the same random histories ---

TEST(WebhookStoresTest, Agree) {
  TemporaryDirectory directory;
  SqliteStoreOptions options;
  options.path = directory.File("ledger.db");
  options.key_id = kKey;
  options.synchronous_normal = true;  // nothing here loses power
  const std::unique_ptr<SqliteStore> sqlite = SqliteStore::Open(options).value();
  MemoryStore memory;
  std::mt19937 dice(7);
  const auto below = [&dice](int end) { return static_cast<int>(dice() % static_cast<unsigned>(end)); };
  int64_t deeds = 0;
  for (int step = 0; step < 4000; ++step) {
    ASSERT_TRUE(memory.Start().ok() && sqlite->Start().ok());
    for (int left = below(4); left >= 0; --left) {
      const int kind = below(8);
      const int n = below(30);
      Webhook hook = Hook(n, step - below(5), below(2) == 0 ? std::optional<int>(below(3)) : std::nullopt);
      hook.received += absl::Microseconds(++deeds);  // which of two equally old ones is forgotten first is left open
      WebhookQueue::EndRequest end{hook.id, "read", std::nullopt};
      if (below(2) == 0) end.again = At(step + below(20));
      const absl::Time now = At(step + below(90));
      const auto limit = static_cast<size_t>(below(6));
      const auto deed = [&](Store& store) -> std::string {
        WebhookStore& webhooks = store.webhooks();
        std::ostringstream said;
        const WebhookStore::Standing standing = webhooks.StandingOf(hook.id).value();
        said << static_cast<int>(standing) << ' ';
        if (kind < 3) {
          if (standing == WebhookStore::Standing::kNew) said << webhooks.Add(hook).ToString();
        } else if (kind < 6) {
          said << webhooks.End(end).ToString();
        } else if (kind < 7) {
          said << webhooks.ReceiverAlive(now).ToString();
        } else {
          said << webhooks.ForgetWebhooks(At(step - 15), limit).value();
        }
        const WebhookQueue::NextAnswer next = webhooks.Next(now, limit).value();
        for (const WebhookQueue::Due& due : next.due) said << ' ' << Show(due.webhook) << ' ' << due.tries;
        said << ' ' << absl::ToUnixMicros(next.next.value_or(absl::UnixEpoch())) << ' ' << next.waiting << ' '
             << absl::ToUnixMicros(next.oldest) << ' ' << webhooks.Waiting().value();
        return said.str();
      };
      ASSERT_EQ(deed(*sqlite), deed(memory)) << "step " << step;
    }
    if (below(4) == 0) {
      memory.Rollback();
      sqlite->Rollback();
    } else {
      ASSERT_TRUE(memory.Commit().ok() && sqlite->Commit().ok());
    }
  }
}

// --- a SQLite file ---

absl::Time g_now;

class SqliteWebhooksTest : public testing::Test, protected Calls {
 protected:
  SqliteWebhooksTest() {
    g_now = At(0);
    options_.store.path = directory_.File("ledger.db");
    options_.store.merge = EarlyMerges();
    options_.store.key_id = kKey;
    options_.store.now = [] { return g_now; };
    options_.unknown_reason = 19;
    Open();
  }
  void Open() {
    ledger_ = SqliteLedger::Open(options_).value();
    Use(ledger_.get());
  }
  void Reopen() {
    ledger_.reset();
    Open();
  }
  WebhookEvidence Evidence(int attempt, int64_t since, int64_t now) {
    WebhookEvidence evidence;
    Record record;
    record.attempt_id = Id(attempt);
    record.created = At(since);
    const absl::Status status = ledger_->Transact([&](Store&, Inspector& inspector) -> absl::Status {
      absl::StatusOr<WebhookEvidence> found = inspector.EvidenceOf(record, At(now));
      if (!found.ok()) return found.status();
      evidence = *std::move(found);
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return evidence;
  }

  TemporaryDirectory directory_;
  SqliteLedgerOptions options_;
  std::unique_ptr<SqliteLedger> ledger_;
};

TEST_F(SqliteWebhooksTest, WhatIsStoredOutlivesTheProcess) {
  Receive(Hook(1, 10, 1000));
  Receive(Hook(2, 11));
  Receive(Hook(3, 12));
  End(2, "read");
  End(3, "", 60);
  Reopen();
  EXPECT_EQ(Receive(Hook(1, 20)), Receipt::kWaits);
  EXPECT_EQ(Receive(Hook(2, 20)), Receipt::kDone);
  const WebhookQueue::NextAnswer answer = Next(60);
  ASSERT_EQ(answer.due.size(), 2U);
  EXPECT_EQ(Show(answer.due[0].webhook), Show(Hook(1, 10, 1000)));
  EXPECT_EQ(answer.due[1].tries, 1);
  EXPECT_EQ(answer.waiting, 2U);
}

TEST_F(SqliteWebhooksTest, TheLimitCountsWhatAnEarlierProcessLeft) {
  options_.webhook_limit = 2;
  Reopen();
  Receive(Hook(1, 10));
  Receive(Hook(2, 11));
  Reopen();
  EXPECT_EQ(Receive(Hook(3, 12)), Receipt::kFull);
}

TEST_F(SqliteWebhooksTest, WhileTheDiskFailsOnlyWhatIsDurableIsKnown) {
  ledger_.reset();
  FaultVfs& vfs = FaultVfs::Get();
  options_.store.vfs = vfs.name();
  options_.retry_first = absl::Hours(1);
  Open();
  Receive(Hook(1, 10));
  Receive(Hook(2, 10));
  End(2, "read");
  vfs.Fail(SQLITE_IOERR_WRITE);
  EXPECT_EQ(Receive(Hook(3, 11)), Receipt::kUnavailable);
  EXPECT_EQ(Receive(Hook(3, 11)), Receipt::kUnavailable) << "what could not be stored is not known";
  EXPECT_EQ(Receive(Hook(1, 11)), Receipt::kWaits);
  EXPECT_EQ(Receive(Hook(2, 11)), Receipt::kDone);
  EXPECT_FALSE(End(1, "read"));
  EXPECT_THAT(Due(20), ElementsAre("hook-1"));
  vfs.Heal();
  Reopen();
  EXPECT_EQ(Receive(Hook(3, 12)), Receipt::kStored);
  ledger_.reset();
}

// Where nothing new starts, no webhook is stored either: the next start would not find it.
TEST_F(SqliteWebhooksTest, NothingIsStoredWhileTheFilesAreAway) {
  Receive(Hook(1, 10));
  std::filesystem::rename(directory_.File("ledger.db"), directory_.File("away.db"));
  const auto away = [this] { return Receive(Hook(2, 11)) == Receipt::kUnavailable; };
  for (int n = 0; n < 1000 && ledger_->Writable(); ++n) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_TRUE(away());
  EXPECT_EQ(Receive(Hook(1, 11)), Receipt::kWaits);
  std::filesystem::rename(directory_.File("away.db"), directory_.File("ledger.db"));
}

TEST_F(SqliteWebhooksTest, DoneOnesAreForgottenAfterThirtyDaysAndThoseThatWaitAreNot) {
  options_.purge_interval = absl::Milliseconds(1);
  options_.purge_pause = absl::Milliseconds(5);
  options_.purge_at_once = 2;
  options_.idle_look_interval = absl::Milliseconds(5);
  for (int n = 1; n <= 5; ++n) Receive(Hook(n, n));
  for (const int n : {1, 2, 4, 5}) End(n, "read");
  constexpr int64_t kMonth = 30 * 24 * 3600;
  g_now = At(kMonth + 5);
  Reopen();
  const auto count = [this] {
    int64_t rows = 0;
    EXPECT_TRUE(ledger_
                    ->Administer([&](SqliteStore& store) {
                      rows = 0;
                      for (int n = 1; n <= 5; ++n) {
                        const auto standing = store.webhooks().StandingOf("hook-" + std::to_string(n));
                        rows += standing.ok() && *standing != WebhookStore::Standing::kNew ? 1 : 0;
                      }
                      return absl::OkStatus();
                    })
                    .ok());
    return rows;
  };
  for (int turn = 0; turn < 5000 && count() > 2; ++turn) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(count(), 2);
  EXPECT_EQ(Receive(Hook(3, kMonth + 5)), Receipt::kWaits);
  EXPECT_EQ(Receive(Hook(5, kMonth + 5)), Receipt::kDone) << "it is 30 days old and not older";
  EXPECT_EQ(Receive(Hook(1, kMonth + 5)), Receipt::kStored) << "forgotten, so it is new: a hint more";
}

// A copy of an idle ledger must not look outdated because the receiver lives.
TEST_F(SqliteWebhooksTest, ASignOfLifeMakesNoLedgerNewer) {
  options_.mark_interval = absl::ZeroDuration();
  Receive(Hook(1, 10));
  Reopen();
  const auto revision = [this] {
    int64_t now = 0;
    EXPECT_TRUE(ledger_
                    ->Administer([&](SqliteStore& store) {
                      now = store.revision();
                      return absl::OkStatus();
                    })
                    .ok());
    return now;
  };
  Next(1);
  const int64_t before = revision();
  g_now = At(100);
  for (int n = 0; n < 3; ++n) {
    ledger_->ReceiverAlive(At(20 + 10 * n));
    Next(1);
  }
  EXPECT_EQ(revision(), before);
  Receive(Hook(2, 100));
  Receive(Hook(3, 100));
  EXPECT_GT(revision(), before);
}

// --- what operators are shown ---

TEST_F(SqliteWebhooksTest, NoReceiverEverRan) {
  const WebhookEvidence evidence = Evidence(1000, 10, 20);
  EXPECT_EQ(evidence.receiver_began, absl::InfinitePast());
  EXPECT_FALSE(evidence.receiver_up);
  EXPECT_EQ(evidence.naming_all, 0);
  EXPECT_EQ(evidence.others, 0);
  EXPECT_EQ(evidence.forgotten_before, At(20) - absl::Hours(720));
}

TEST_F(SqliteWebhooksTest, SignsOfLifeMakeAPeriodUntilAGap) {
  for (const int64_t at : {100, 110, 140, 135}) ledger_->ReceiverAlive(At(at));
  WebhookEvidence evidence = Evidence(1000, 120, 170);
  EXPECT_EQ(evidence.receiver_began, At(100));
  EXPECT_EQ(evidence.receiver_until, At(140));
  EXPECT_TRUE(evidence.receiver_up);
  EXPECT_FALSE(Evidence(1000, 120, 171).receiver_up);
  ledger_->ReceiverAlive(At(171));
  evidence = Evidence(1000, 120, 172);
  EXPECT_EQ(evidence.receiver_began, At(171));
  EXPECT_TRUE(evidence.receiver_up);
}

TEST_F(SqliteWebhooksTest, AClockThatWasSetBackBeginsAPeriod) {
  ledger_->ReceiverAlive(At(1000));
  ledger_->ReceiverAlive(At(100));
  const WebhookEvidence evidence = Evidence(1000, 50, 105);
  EXPECT_EQ(evidence.receiver_began, At(100));
  EXPECT_EQ(evidence.receiver_until, At(100));
}

TEST_F(SqliteWebhooksTest, WebhooksThatNameTheAttemptAndTheOthers) {
  Receive(Hook(1, 10, 2000));  // before it was begun
  Receive(Hook(2, 20, 2000));
  Receive(Hook(3, 21, 1000));
  Receive(Hook(4, 22));
  Receive(Hook(5, 23, 1000));
  Receive(Hook(6, 24, 3000));
  End(3, "conflict");
  const WebhookEvidence evidence = Evidence(1000, 20, 30);
  EXPECT_EQ(evidence.naming_all, 2);
  ASSERT_EQ(evidence.naming.size(), 2U);
  EXPECT_EQ(Show(evidence.naming[0].webhook), Show(Hook(5, 23, 1000)));
  EXPECT_TRUE(evidence.naming[0].waits);
  EXPECT_EQ(evidence.naming[0].result, "");
  EXPECT_EQ(Show(evidence.naming[1].webhook), Show(Hook(3, 21, 1000)));
  EXPECT_FALSE(evidence.naming[1].waits);
  EXPECT_EQ(evidence.naming[1].result, "conflict");
  EXPECT_EQ(evidence.others, 3);
  EXPECT_EQ(evidence.nameless, 1);
  EXPECT_EQ(Evidence(4000, 20, 30).others, 5);
  EXPECT_EQ(Evidence(4000, 25, 30).others, 0);
  EXPECT_EQ(Evidence(4000, 25, 30).nameless, 0);
}

TEST_F(SqliteWebhooksTest, OnlySomeOfManyThatNameItAreShown) {
  for (int n = 0; n < 12; ++n) Receive(Hook(n, 20 + n, 1000));
  const WebhookEvidence evidence = Evidence(1000, 20, 40);
  EXPECT_EQ(evidence.naming_all, 12);
  ASSERT_EQ(static_cast<int64_t>(evidence.naming.size()), kNamingShown);
  EXPECT_EQ(evidence.naming.front().webhook.id, "hook-11");
  EXPECT_EQ(evidence.others, 0);
}

}  // namespace
}  // namespace userintent::ledger
