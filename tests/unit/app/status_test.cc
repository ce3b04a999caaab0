// The page of /status: what is on it of a process, that asking for it costs little, and what of the unresolved requests
// an operator can paste.
#include "server/app/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/admin/tool_text.h"
#include "server/admin/unresolved.h"
#include "server/app/telemetry.h"
#include "server/app/unresolved_reader.h"

namespace userintent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

// ---- the commands to paste

TEST(CommandsTest, WhatOnlyTheOperatorKnowsIsAskedFor) {
  admin::v1::Request request;
  request.set_request_id("11111111-2222-4333-8444-555555555555");
  request.set_caller("uri:spiffe://corp.example/signup");
  const admin::ResolveCommands commands = admin::CommandsFor(request, "sqlite:/var/lib/userintent/ledger.db");
  const std::string begin =
      "userintent-ledger --ledger=sqlite:/var/lib/userintent/ledger.db resolve 11111111-2222-4333-8444-555555555555 "
      "--caller=uri:spiffe://corp.example/signup ";
  EXPECT_THAT(commands.created, testing::StartsWith(begin + R"(--created="${INTENT_ID:?)"));
  EXPECT_THAT(commands.not_created, testing::StartsWith(begin + "--not_created --actor="));
  for (const std::string& command : {commands.created, commands.not_created}) {
    EXPECT_THAT(command, HasSubstr(R"(--actor="${USER:?)"));
    EXPECT_THAT(command, HasSubstr(R"(--evidence="${EVIDENCE:?)"));
  }
  EXPECT_THAT(admin::CommandsFor(request, "").created, Not(HasSubstr("--ledger"))) << "a URL may hold a password";
}

// The webhooks' intent, where there is no doubt which one they mean.
TEST(CommandsTest, TheIntentThatWebhooksNameIsFilledIn) {
  admin::v1::Request request;
  const auto add = [&](const char* intent) {
    request.mutable_webhooks()->add_naming()->set_user_intent_id(intent);
    request.mutable_webhooks()->set_naming_count(request.webhooks().naming_size());
  };
  add("intent-1");
  EXPECT_THAT(admin::CommandsFor(request, "").created, HasSubstr(" --created=intent-1 "));
  add("intent-1");
  EXPECT_THAT(admin::CommandsFor(request, "").created, HasSubstr(" --created=intent-1 "));
  request.mutable_webhooks()->set_naming_count(3);  // one is not shown
  EXPECT_THAT(admin::CommandsFor(request, "").created, HasSubstr("${INTENT_ID:?"));
  request.mutable_webhooks()->set_naming_count(2);
  add("intent-2");
  EXPECT_THAT(admin::CommandsFor(request, "").created, HasSubstr("${INTENT_ID:?"));
}

TEST(CommandsTest, EveryTextIsOneWordOfTheShell) {
  EXPECT_EQ(admin::ShellWord("abc-_./:=,+@%"), "abc-_./:=,+@%");
  EXPECT_EQ(admin::ShellWord(""), "''");
  EXPECT_EQ(admin::ShellWord("a b"), "'a b'");
  EXPECT_EQ(admin::ShellWord("$(reboot);`x`&"), "'$(reboot);`x`&'");
  EXPECT_EQ(admin::ShellWord("it's"), R"('it'\''s')");
}

// ---- the reader

admin::Unresolved One() {
  admin::Unresolved list;
  list.requests.push_back({"request-1", {{"caller", "local"}}, "created-command", "not-created-command"});
  list.all = 1;
  list.read = absl::Now();
  return list;
}

TEST(UnresolvedReaderTest, NobodyWaitsLongerThanHeLikes) {
  std::atomic<bool> hangs{true};
  std::atomic<int> readings{0};
  UnresolvedReader reader([&]() -> absl::StatusOr<admin::Unresolved> {
    ++readings;
    while (hangs) std::this_thread::sleep_for(milliseconds(1));
    return One();
  });
  for (int i = 0; i < 5; ++i) {
    const UnresolvedReader::Answer answer = reader.Get(milliseconds(10));
    EXPECT_EQ(answer.list, nullptr);
    EXPECT_EQ(answer.problem, "the ledger did not answer in time");
  }
  EXPECT_EQ(readings, 1) << "one at a time";
  hangs = false;
  const UnresolvedReader::Answer answer = reader.Get(seconds(60));
  ASSERT_NE(answer.list, nullptr);
  EXPECT_EQ(answer.problem, "");
  EXPECT_EQ(answer.list->requests.size(), 1U);
  hangs = true;
  const UnresolvedReader::Answer old = reader.Get(milliseconds(10));
  EXPECT_NE(old.list, nullptr) << "the last one";
  EXPECT_NE(old.problem, "");
  hangs = false;
}

TEST(UnresolvedReaderTest, AnErrorIsToldAndTheLastListStays) {
  std::atomic<bool> fails{false};
  UnresolvedReader reader([&]() -> absl::StatusOr<admin::Unresolved> {
    if (fails) return absl::UnavailableError("the disk");
    return One();
  });
  EXPECT_EQ(reader.Get(seconds(60)).problem, "");
  fails = true;
  const UnresolvedReader::Answer answer = reader.Get(seconds(60));
  EXPECT_NE(answer.list, nullptr);
  EXPECT_EQ(answer.problem, "the ledger cannot be read: the disk");
}

TEST(UnresolvedReaderTest, ALedgerInMemoryHasNone) {
  config::Settings settings;
  settings.ledger = {config::LedgerLocation::Kind::kMemory, ""};
  EXPECT_EQ(UnresolvedReader::Of(settings, nullptr), nullptr);
}

// ---- the page

class StatusTest : public testing::Test {
 protected:
  StatusTest() { settings_.ledger = {config::LedgerLocation::Kind::kSqlite, "data/ledger.db"}; }

  Status Make(UnresolvedReader::Read read) {
    return {{settings_, admission_, metrics_, [this] { return reasons_; }, "127.0.0.1:50051"},
            read ? std::make_unique<UnresolvedReader>(std::move(read)) : nullptr};
  }

  config::Settings settings_;
  usecase::AdmissionControl admission_{usecase::AdmissionControl::Options{}};
  observe::Metrics metrics_{{"1.2.3", "1.51", "7.88", "3.40"}, Telemetry::Labels()};
  std::vector<std::string> reasons_;
};

TEST_F(StatusTest, AQuietProcess) {
  metrics_.SetLedgerWritable(true);
  metrics_.SetLedgerRows(12345);
  metrics_.SetLedgerLastCommit(absl::Now() - absl::Hours(25));
  metrics_.AddPostsInFlight(3);
  Status status = Make([] { return admin::Unresolved{}; });
  const std::string page = status.Page();
  for (const char* text : {"Ready.", "SQLite, data/ledger.db", ">12345<", "(1d 1h ago)", "POSTs in flight</th><td>3<",
                           "none are received", "every authenticated caller", "none in use", "<p>None.</p>"}) {
    EXPECT_THAT(page, HasSubstr(text)) << text;
  }
}

TEST_F(StatusTest, WhatIsWrongStandsOnTop) {
  reasons_ = {"it drains", "the ledger cannot be written"};
  Status status = Make(nullptr);
  const std::string page = status.Page();
  EXPECT_THAT(page, HasSubstr("<p class=\"ill\">Not ready: it drains; the ledger cannot be written.</p>"));
  EXPECT_THAT(page, HasSubstr("can be written</th><td>NO<"));
  EXPECT_THAT(page, HasSubstr("no tool can look into this ledger"));
}

TEST_F(StatusTest, TheListIsCutAndSaysSo) {
  Status status = Make([] {
    admin::Unresolved list = One();
    list.all = 17;
    return list;
  });
  const std::string page = status.Page();
  EXPECT_THAT(page, HasSubstr("The oldest 1; 16 more: userintent-ledger unresolved"));
  EXPECT_THAT(page, HasSubstr("<pre>created-command</pre>"));
  EXPECT_THAT(page, HasSubstr("<pre>not-created-command</pre>"));

  Status many = Make([] {
    admin::Unresolved list = One();
    list.all = admin::Unresolved::kCounted;
    return list;
  });
  EXPECT_THAT(many.Page(), HasSubstr("The oldest 1; at least 999 more"));
}

TEST_F(StatusTest, AnUrlOfADatabaseKeepsItsPassword) {
  settings_.ledger.kind = config::LedgerLocation::Kind::kPostgresql;
  settings_.ledger.url = "postgresql://user:canary@db.example/ledger?sslmode=verify-full";
  Status status = Make([] { return One(); });
  const std::string page = status.Page();
  EXPECT_THAT(page, Not(HasSubstr("canary")));
  EXPECT_THAT(page, HasSubstr("PostgreSQL, "));
  EXPECT_THAT(page, HasSubstr("USERINTENT_LEDGER"));
}

// However many ask: the ledger is read once a second, and one thread waits for it.
TEST_F(StatusTest, AskingCostsNothing) {
  std::atomic<int> readings{0};
  std::atomic<bool> hangs{false};
  Status status = Make([&]() -> absl::StatusOr<admin::Unresolved> {
    ++readings;
    while (hangs) std::this_thread::sleep_for(milliseconds(1));
    return One();
  });
  const SteadyTime begun = SteadyClock::now();
  for (int i = 0; i < 1000; ++i) EXPECT_THAT(status.Page(), HasSubstr("request-1"));
  const auto took = std::chrono::duration_cast<seconds>(SteadyClock::now() - begun).count();
  EXPECT_LE(readings, took + 2);

  const int before = readings;
  hangs = true;
  std::this_thread::sleep_for(milliseconds(1100));  // the page is old
  std::thread waits([&] { EXPECT_THAT(status.Page(), HasSubstr("the ledger did not answer in time")); });
  while (readings == before) std::this_thread::sleep_for(milliseconds(1));
  for (int i = 0; i < 100; ++i) EXPECT_THAT(status.Page(), HasSubstr("request-1"));
  waits.join();
  hangs = false;
}

}  // namespace
}  // namespace userintent
