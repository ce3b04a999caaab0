// One stream of WatchUserIntents, with a clock, a ledger and a reader of the test's own: what is told and when, what
// ends it, and what it holds meanwhile. Nothing sleeps.
#include "server/usecase/watch_stream.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/uuid.h"
#include "server/usecase/messages.h"
#include "server/usecase/watch_request.h"
#include "tests/unit/usecase/fake_loop.h"
#include "tests/unit/usecase/watch_ledger.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using Event = Reader::Event;

class Follower final : public WatchFollower {
 public:
  void OnWatchBegins(const std::string& caller, absl::Span<const Uuid> request_ids) override {
    begun.emplace_back(caller, std::vector<Uuid>(request_ids.begin(), request_ids.end()));
  }
  std::vector<std::pair<std::string, std::vector<Uuid>>> begun;
};

class WatchStreamTest : public testing::Test {
 protected:
  WatchStreamTest() { ledger_.SetListener(&hub_); }

  // Begins a stream; it has not read yet.
  std::unique_ptr<Reader> Watch(const std::vector<Uuid>& ids = {}, const std::string& token = "",
                                const std::string& caller = "a") {
    v1::WatchUserIntentsRequest request;
    for (const Uuid& id : ids) request.add_request_ids(UuidText(id));
    request.set_resume_token(token);
    return Ask(request, caller);
  }
  std::unique_ptr<Reader> Ask(const v1::WatchUserIntentsRequest& request, const std::string& caller = "a") {
    auto reader = std::make_unique<Reader>();
    reader->stream = WatchUserIntents(deps_, {caller, request, *reader});
    loop_.Settle();
    return reader;
  }

  // Reads all there is.
  void ReadAll(Reader& reader) {
    loop_.Settle();
    while (reader.writing && !reader.ended) {
      reader.Read();
      loop_.Settle();
    }
  }
  // A reader that takes all at every step, until its stream ends, or for an hour: how long that was.
  SteadyClock::duration ReadUntilTheEnd(Reader& reader, SteadyClock::duration step) {
    const SteadyTime begun = loop_.Now();
    while (!reader.ended && loop_.Now() - begun < 1h) {
      ReadAll(reader);
      loop_.Advance(step);
    }
    return loop_.Now() - begun;
  }
  // The events from the message `from` on, after ReadAll(), each as "changed 1 approved", "synced", "heartbeat" or
  // "reset".
  std::vector<std::string> Events(Reader& reader, size_t from = 0) {
    ReadAll(reader);
    std::vector<std::string> events;
    for (size_t i = from; i < reader.messages.size(); ++i) events.push_back(Text(reader.messages[i]));
    return events;
  }
  static std::string Text(const v1::WatchUserIntentsResponse& message) {
    switch (message.event_case()) {
      case Event::kChanged: {
        const Uuid id = *ParseUuid(message.changed().request_id());
        return "changed " + std::to_string(id[0] << 8 | id[1]) + ' ' + message.changed().user_intent().astra_status();
      }
      case Event::kSynced:
        return "synced";
      case Event::kHeartbeat:
        return "heartbeat";
      case Event::kReset:
        return "reset";
      case Event::EVENT_NOT_SET:
        break;
    }
    return "nothing";
  }
  static const std::string& TokenOf(const Reader& reader) { return reader.messages.back().resume_token(); }
  WatchPosition PositionOf(const Reader& reader, size_t message) const {
    WatchPosition position;
    EXPECT_EQ(tokens_.Read("a", reader.messages[message].resume_token(), &position), WatchTokens::Verdict::kGood);
    return position;
  }
  WatchPosition LastPosition(const Reader& reader) const { return PositionOf(reader, reader.messages.size() - 1); }

  static v1::ErrorReason ReasonOf(const Reader& reader) {
    return reader.ended ? reader.ended->reason : v1::ERROR_REASON_UNSPECIFIED;
  }

  FakeLoop loop_;
  WatchTokens tokens_{{.ledger_id = 7}, Secret(std::string(32, 'k')), {}};
  WatchLedger ledger_;
  WatchHub hub_{ledger_, {.streams = 4, .per_caller = 3}};
  WatchCounts counts_;
  WatchDependencies deps_{loop_, ledger_, ledger_, hub_, tokens_, counts_, 3};
};

using Strings = std::vector<std::string>;

TEST_F(WatchStreamTest, NamedRequestsFirstAsTheyAre) {
  ledger_.Change("a", Id(1), "pending");
  ledger_.Change("a", Id(2), "approved");
  ledger_.Change("b", Id(3), "approved");
  // One twice, one that is another caller's, one that nobody has.
  const auto reader = Watch({Id(2), Id(1), Id(2), Id(3), Id(4)});
  EXPECT_EQ(Events(*reader), (Strings{"changed 2 approved", "changed 1 pending", "synced"}));
  EXPECT_EQ(counts_.open, 1);
  EXPECT_EQ(counts_.events[WatchEvent::kChanged], 2);
}

TEST_F(WatchStreamTest, AStateIsWhatGetCreationTells) {
  ledger_.Change("a", Id(1), "pending");
  const auto reader = Watch({Id(1)});
  ReadAll(*reader);
  const v1::Creation expected = ToCreation(*ledger_.Find("a", Id(1)), {}, 3);
  EXPECT_EQ(reader->messages[0].changed().SerializeAsString(), expected.SerializeAsString());
  EXPECT_EQ(reader->messages[0].changed().attempts().limit(), 3);
}

TEST_F(WatchStreamTest, WhoFollowsAllBeginsWithNothing) {
  ledger_.Change("a", Id(1), "pending");
  const auto reader = Watch();
  EXPECT_EQ(Events(*reader), (Strings{"synced"}));
  ledger_.Change("a", Id(1), "approved");
  ledger_.Change("b", Id(2), "approved");
  ledger_.Change("a", Id(3), "pending");
  EXPECT_EQ(Events(*reader, 1), (Strings{"changed 1 approved", "changed 3 pending"}));
  EXPECT_EQ(LastPosition(*reader).revision, 4);
}

TEST_F(WatchStreamTest, NamedRequestsOnly) {
  const auto reader = Watch({Id(1)});
  ledger_.Change("a", Id(2), "pending");
  ledger_.Change("a", Id(1), "pending");
  ledger_.Change("b", Id(1), "approved");
  EXPECT_EQ(Events(*reader), (Strings{"synced", "changed 1 pending"}));
}

TEST_F(WatchStreamTest, ATokenGoesOnWhereItStood) {
  std::string token;
  {
    const auto reader = Watch();
    ledger_.Change("a", Id(1), "pending");
    ReadAll(*reader);
    token = TokenOf(*reader);
  }
  EXPECT_EQ(counts_.open, 0);
  EXPECT_EQ(counts_.ends[WatchEnd::kCallerLeft], 1);
  ledger_.Change("a", Id(1), "approved");
  ledger_.Change("b", Id(5), "approved");
  ledger_.Change("a", Id(2), "pending");
  const auto reader = Watch({}, token);
  EXPECT_EQ(Events(*reader), (Strings{"changed 1 approved", "changed 2 pending", "synced"}));
  ledger_.Change("a", Id(2), "approved");
  EXPECT_EQ(Events(*reader, 3), (Strings{"changed 2 approved"}));
  // With the named requests only, from the same token.
  EXPECT_EQ(Events(*Watch({Id(1)}, token)), (Strings{"changed 1 approved", "synced"}));
}

TEST_F(WatchStreamTest, EveryTokenIsGood) {
  for (int i = 0; i < 100; ++i) ledger_.Change("a", Id(i), "pending");
  const auto whole = Watch({}, tokens_.Make("a", {0}));
  ReadAll(*whole);
  ASSERT_EQ(whole->messages.size(), 101U);
  for (size_t i = 0; i < whole->messages.size(); ++i) {
    const size_t left = 100 - std::min<size_t>(i + 1, 100);
    EXPECT_EQ(Events(*Watch({}, whole->messages[i].resume_token())).size(), left + 1);
  }
}

TEST_F(WatchStreamTest, ATokenFromBeforeSyncedBeginsAnew) {
  for (int i = 0; i < 3; ++i) ledger_.Change("a", Id(i), "pending");
  const auto reader = Watch({Id(0), Id(1), Id(2)});
  ASSERT_EQ(reader->messages.size(), 1U);
  EXPECT_EQ(Events(*Watch({Id(0), Id(1), Id(2)}, TokenOf(*reader))).size(), 4U);
}

TEST_F(WatchStreamTest, WhatHappensMeanwhileIsTold) {
  ledger_.Change("a", Id(1), "pending");
  ledger_.held = true;
  const auto reader = Watch({Id(1)});
  ASSERT_EQ(ledger_.waiting(), 1U);
  ledger_.Change("a", Id(1), "approved");  // after the state was read, before it is told
  ledger_.held = false;
  ledger_.Answer();
  EXPECT_EQ(Events(*reader), (Strings{"changed 1 pending", "synced", "changed 1 approved"}));
}

TEST_F(WatchStreamTest, ACommitThatIsHeardOfLateIsNotMissed) {
  ledger_.Commit("a", Id(1), "pending");
  const auto reader = Watch();  // begins at that commit
  EXPECT_EQ(Events(*reader), (Strings{"synced"}));
  EXPECT_EQ(LastPosition(*reader).revision, 1);
  ledger_.Tell();
  EXPECT_EQ(Events(*reader).size(), 1U);
  ledger_.Commit("a", Id(1), "approved");
  const auto other = Watch({}, TokenOf(*reader));
  EXPECT_EQ(Events(*other), (Strings{"changed 1 approved", "synced"}));
  ledger_.Tell();
  EXPECT_EQ(Events(*reader, 1), (Strings{"changed 1 approved"}));
}

TEST_F(WatchStreamTest, TooOldIsResetAndTheStatesAgain) {
  for (int i = 0; i < 10; ++i) ledger_.Change("a", Id(i), "pending");
  ledger_.Prune(2);
  const auto named = Watch({Id(1), Id(9)}, tokens_.Make("a", {3}));
  EXPECT_EQ(Events(*named), (Strings{"reset", "changed 1 pending", "changed 9 pending", "synced"}));
  EXPECT_EQ(PositionOf(*named, 0).revision, std::nullopt);  // lost after the reset: it begins anew
  EXPECT_EQ(counts_.events[WatchEvent::kReset], 1);
  EXPECT_EQ(Events(*Watch({}, tokens_.Make("a", {3}))), (Strings{"reset", "synced"}));
  EXPECT_EQ(Events(*Watch({}, tokens_.Make("a", {8}))), (Strings{"changed 8 pending", "changed 9 pending", "synced"}));
}

TEST_F(WatchStreamTest, ARevisionThatTheLedgerHasNotReachedIsTooOld) {
  ledger_.Change("a", Id(1), "pending");
  EXPECT_EQ(Events(*Watch({}, tokens_.Make("a", {1}))), (Strings{"synced"}));
  EXPECT_EQ(Events(*Watch({}, tokens_.Make("a", {2}))), (Strings{"reset", "synced"}));
  const WatchTokens before({.ledger_id = 7, .restored = 5}, Secret(std::string(32, 'k')), {});
  EXPECT_EQ(Events(*Watch({}, before.Make("a", {1}))), (Strings{"reset", "synced"}));
}

TEST_F(WatchStreamTest, ATokenOfAnotherReplicaIsGoodBeforeThisOneHasHeardOfTheChange) {
  ledger_.shared = true;
  ledger_.Change("a", Id(1), "pending");
  ledger_.Commit("a", Id(1), "approved");
  ledger_.Commit("a", Id(2), "pending");
  ledger_.Commit("a", Id(3), "pending");
  const auto reader = Watch({}, tokens_.Make("a", {3}));  // another one has told as much
  EXPECT_EQ(Events(*reader), (Strings{"changed 3 pending", "synced"}));
  EXPECT_EQ(LastPosition(*reader).revision, 4);
  const auto last = Watch({}, tokens_.Make("a", {4}));
  EXPECT_EQ(Events(*last), (Strings{"synced"}));
  EXPECT_EQ(LastPosition(*last).revision, 4);
  ledger_.Tell();  // nothing twice
  ledger_.Change("a", Id(2), "approved");
  EXPECT_EQ(Events(*reader, 2), (Strings{"changed 2 approved"}));
  EXPECT_EQ(Events(*last, 1), (Strings{"changed 2 approved"}));
  // One that was told by nobody.
  EXPECT_EQ(Events(*Watch({}, tokens_.Make("a", {6}))), (Strings{"reset", "synced"}));
}

TEST_F(WatchStreamTest, WhatWasCommittedBeforeAResumeComesBeforeSyncedThoughThisReplicaHasNotHeardOfIt) {
  ledger_.shared = true;
  ledger_.Change("a", Id(1), "pending");
  ledger_.Change("a", Id(2), "pending");
  ledger_.Commit("a", Id(3), "pending");
  const auto behind = Watch({}, tokens_.Make("a", {1}));
  EXPECT_EQ(Events(*behind), (Strings{"changed 2 pending", "changed 3 pending", "synced"}));
  const auto level = Watch({}, tokens_.Make("a", {2}));
  EXPECT_EQ(Events(*level), (Strings{"changed 3 pending", "synced"}));
  EXPECT_EQ(LastPosition(*level).revision, 3);
  ledger_.Tell();  // nothing twice
  ledger_.Change("a", Id(1), "approved");
  EXPECT_EQ(Events(*level, 2), (Strings{"changed 1 approved"}));
}

TEST_F(WatchStreamTest, BadRequestsAreNamed) {
  v1::WatchUserIntentsRequest request;
  request.add_request_ids("no");
  request.add_request_ids(UuidText(Id(1)));
  request.add_request_ids("");
  request.set_resume_token(tokens_.Make("b", {1}));
  const auto reader = Ask(request);
  ASSERT_EQ(ReasonOf(*reader), v1::ERROR_REASON_FIELD_INVALID);
  const auto& violations = reader->ended->violations;
  ASSERT_EQ(violations.size(), 3U);
  EXPECT_EQ(violations[0].field, "request_ids");
  EXPECT_EQ(violations[0].description, "element 0, counted from 0, is not UUID text 8-4-4-4-12");
  EXPECT_EQ(violations[1].description, "element 2, counted from 0, is not UUID text 8-4-4-4-12");
  EXPECT_EQ(violations[2].field, "resume_token");

  v1::WatchUserIntentsRequest many;
  for (int i = 0; i <= kMaxWatchedRequests; ++i) many.add_request_ids(UuidText(Id(i)));
  const auto refused = Ask(many);
  ASSERT_EQ(ReasonOf(*refused), v1::ERROR_REASON_FIELD_INVALID);
  EXPECT_EQ(refused->ended->violations[0].field, "request_ids");
  many.mutable_request_ids()->RemoveLast();
  EXPECT_EQ(Events(*Ask(many)), (Strings{"synced"}));
}

TEST_F(WatchStreamTest, ASlowReaderGetsFoldedStates) {
  const auto reader = Watch();
  ASSERT_TRUE(reader->writing);
  for (const char* status : {"pending", "retry", "document", "approved"}) {
    ledger_.Change("a", Id(1), status);
    ledger_.Change("a", Id(2), status);
  }
  EXPECT_EQ(Events(*reader), (Strings{"synced", "changed 1 approved", "changed 2 approved"}));
}

TEST_F(WatchStreamTest, ARequestThatChangesAllTheTimeHasItsTurn) {
  const auto reader = Watch();
  for (int i = 2; i < 200; ++i) {
    ledger_.Change("a", Id(1), "busy");
    ledger_.Change("a", Id(i), "pending");
    loop_.Settle();
  }
  reader->Read();
  loop_.Settle();
  EXPECT_EQ(Text(reader->messages.back()), "changed 1 busy");
}

TEST_F(WatchStreamTest, TooManyToKeepAreReadFromTheLog) {
  const auto reader = Watch();
  constexpr int kMore = 3 * static_cast<int>(WatchHub::kMaxPending);
  for (int i = 0; i < kMore; ++i) ledger_.Change("a", Id(i), "pending");
  EXPECT_EQ(ledger_.log_reads, 0U);
  EXPECT_EQ(Events(*reader).size(), 1U + kMore);
  EXPECT_GT(ledger_.log_reads, WatchHub::kMaxPending / 64);
  std::optional<int64_t> last = 0;
  for (size_t i = 1; i < reader->messages.size(); ++i) {
    EXPECT_EQ(Text(reader->messages[i]), "changed " + std::to_string(i - 1) + " pending");
    EXPECT_GT(PositionOf(*reader, i).revision, last);
    last = PositionOf(*reader, i).revision;
  }
  // And then again from the hub.
  const size_t reads = ledger_.log_reads;
  ledger_.Change("a", Id(1), "approved");
  EXPECT_EQ(Events(*reader, 1 + kMore), (Strings{"changed 1 approved"}));
  EXPECT_EQ(ledger_.log_reads, reads);
}

TEST_F(WatchStreamTest, AReaderThatTheLogHasLeftBehindIsReset) {
  const auto reader = Watch();
  for (int i = 0; i < 2000; ++i) ledger_.Change("a", Id(i), "pending");
  ledger_.Prune(10);
  EXPECT_EQ(Events(*reader), (Strings{"synced", "reset", "synced"}));
  EXPECT_EQ(LastPosition(*reader).revision, 2000);
}

TEST_F(WatchStreamTest, AReaderThatReadsNothingIsLetGo) {
  const auto reader = Watch();
  loop_.Advance(kSlowestReader - 1s);
  EXPECT_FALSE(reader->ended);
  EXPECT_EQ(reader->messages.size(), 1U);  // no heartbeat behind a message that is not taken
  loop_.Advance(kHeartbeatEvery);
  EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_GT(reader->ended->retry_after, absl::ZeroDuration());
  EXPECT_EQ(counts_.ends[WatchEnd::kSlowReader], 1);
  EXPECT_EQ(hub_.streams(), 0U);
  EXPECT_EQ(loop_.timers(), 0U);
}

TEST_F(WatchStreamTest, SilenceIsBrokenByHeartbeats) {
  const auto reader = Watch({Id(1)});
  ReadAll(*reader);
  ledger_.Change("a", Id(2), "pending");  // of no interest, but the token moves on
  loop_.Advance(kHeartbeatEvery);
  EXPECT_EQ(Events(*reader, 1), (Strings{"heartbeat"}));
  EXPECT_EQ(LastPosition(*reader).revision, 1);
  // The first one comes early; each one that follows 20 s after the last event.
  const size_t before = reader->messages.size();
  for (int i = 0; i < 8; ++i) {
    loop_.Advance(10s);
    ReadAll(*reader);
  }
  EXPECT_EQ(reader->messages.size(), before + 4);
  for (int i = 0; i < 20; ++i) {
    ledger_.Change("a", Id(1), std::to_string(i));
    ReadAll(*reader);
    loop_.Advance(15s);
  }
  EXPECT_EQ(counts_.events[WatchEvent::kHeartbeat], 5);
}

TEST_F(WatchStreamTest, EndsByItselfBeforeItsConnectionDoes) {
  const auto reader = Watch();
  const auto lasted = ReadUntilTheEnd(*reader, 1s);
  EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_DRAINING);
  EXPECT_GE(lasted, kLongestWatch * 9 / 10);
  EXPECT_LE(lasted, kLongestWatch + 1s);
  EXPECT_EQ(counts_.ends[WatchEnd::kAge], 1);
  EXPECT_EQ(Events(*Watch({}, TokenOf(*reader))), (Strings{"synced"}));
}

TEST_F(WatchStreamTest, LastsNoLongerThanAConnection) {
  deps_.connection_age = 10s;
  const auto reader = Watch();
  const auto lasted = ReadUntilTheEnd(*reader, 100ms);
  EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_DRAINING);
  EXPECT_GE(lasted, 9s);
  EXPECT_LE(lasted, 11s);
}

TEST_F(WatchStreamTest, ADrainEndsAllOfThem) {
  const auto idle = Watch();
  ReadAll(*idle);
  const auto busy = Watch();  // its message is not taken
  ledger_.held = true;
  const auto reading = Watch({Id(1)});
  hub_.Drain();
  loop_.Settle();
  for (const auto* reader : {idle.get(), busy.get(), reading.get()}) {
    EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_DRAINING);
    EXPECT_FALSE(reader->ended->message.empty());
  }
  ledger_.Answer();
  loop_.Settle();
  EXPECT_TRUE(reading->messages.empty());
  EXPECT_EQ(ReasonOf(*Watch({}, "", "c")), v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(counts_.ends[WatchEnd::kDrain], 4);
  EXPECT_EQ(counts_.open, 0);
}

TEST_F(WatchStreamTest, StreamsAreLimited) {
  std::vector<std::unique_ptr<Reader>> open;
  for (int i = 0; i < 3; ++i) open.push_back(Watch({Id(i)}));
  const auto fourth = Watch();
  EXPECT_EQ(ReasonOf(*fourth), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_FALSE(fourth->ended->message.empty());
  open.push_back(Watch({}, "", "b"));
  EXPECT_EQ(ReasonOf(*open.back()), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(ReasonOf(*Watch({}, "", "c")), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  open.erase(open.begin());
  EXPECT_EQ(ReasonOf(*Watch({}, "", "c")), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(ReasonOf(*Watch()), v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_EQ(counts_.ends[WatchEnd::kRefused], 2);
  open.clear();
  EXPECT_EQ(hub_.streams(), 0U);
}

TEST_F(WatchStreamTest, ALedgerThatCannotBeReadEndsIt) {
  ledger_.available = false;
  EXPECT_EQ(ReasonOf(*Watch({Id(1)})), v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  ledger_.available = true;
  const auto reader = Watch();
  ReadAll(*reader);
  ledger_.available = false;
  ledger_.Change("a", Id(1), "pending");
  ReadAll(*reader);
  EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  ledger_.available = true;
  EXPECT_EQ(Events(*Watch({}, TokenOf(*reader))), (Strings{"changed 1 pending", "synced"}));
}

TEST_F(WatchStreamTest, ALedgerThatIsSilentEndsIt) {
  ledger_.held = true;
  const auto reader = Watch({Id(1)});
  loop_.Advance(2 * kHeartbeatEvery);
  EXPECT_EQ(ReasonOf(*reader), v1::ERROR_REASON_LEDGER_UNAVAILABLE);
}

TEST_F(WatchStreamTest, AnAnswerAfterTheEndIsDropped) {
  ledger_.held = true;
  Watch({Id(1)}).reset();
  ledger_.Answer();
  loop_.Settle();
  ledger_.Change("a", Id(1), "pending");
  const auto reader = Watch({}, tokens_.Make("a", {0}));
  ASSERT_EQ(ledger_.waiting(), 1U);
  hub_.Drain();
  loop_.Settle();
  while (ledger_.waiting() > 0) ledger_.Answer();
  loop_.Settle();
  EXPECT_TRUE(reader->messages.empty());
}

TEST_F(WatchStreamTest, TellsWhatIsWatched) {
  Follower follower;
  hub_.SetFollower(&follower);
  auto named = Watch({Id(2), Id(1)});
  auto all = Watch({}, "", "b");
  ASSERT_EQ(follower.begun.size(), 2U);
  EXPECT_EQ(follower.begun[0], std::pair(std::string("a"), (std::vector<Uuid>{Id(2), Id(1)})));
  EXPECT_EQ(follower.begun[1], std::pair(std::string("b"), std::vector<Uuid>()));
  EXPECT_EQ(hub_.Watched("a", Id(1)), Watching::kByName);
  EXPECT_EQ(hub_.Watched("a", Id(3)), Watching::kNobody);
  EXPECT_EQ(hub_.Watched("b", Id(3)), Watching::kWithAll);
  EXPECT_EQ(hub_.Watched("c", Id(1)), Watching::kNobody);
  auto again = Watch({Id(1)});
  auto both = Watch({}, "", "a");
  EXPECT_EQ(hub_.Watched("a", Id(1)), Watching::kByName);
  EXPECT_EQ(hub_.Watched("a", Id(3)), Watching::kWithAll);
  both.reset();
  named.reset();
  EXPECT_EQ(hub_.Watched("a", Id(1)), Watching::kByName);
  EXPECT_EQ(hub_.Watched("a", Id(2)), Watching::kNobody);
  again.reset();
  all.reset();
  EXPECT_EQ(hub_.Watched("a", Id(1)), Watching::kNobody);
  EXPECT_EQ(hub_.Watched("b", Id(3)), Watching::kNobody);
}

}  // namespace
}  // namespace userintent::usecase
