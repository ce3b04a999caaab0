// How unknown outcomes become known by proof: every state of a row and every proof, over every store.
#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "server/ledger/memory_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using S = SettleVerdict;

const Key kRow{"one", Id(1)};

// What the row is when the proof comes.
enum class Given { kNothing, kSending, kUnknown, kUnknownConfirmed, kSucceeded, kSucceededOther, kFailed, kReleased };
// What is proved of it.
enum class Proof { kCreated, kNotCreated, kReleased, kCounts };

constexpr std::array kGivens = {Given::kNothing,   Given::kSending,        Given::kUnknown, Given::kUnknownConfirmed,
                                Given::kSucceeded, Given::kSucceededOther, Given::kFailed,  Given::kReleased};
constexpr std::array kProofs = {Proof::kCreated, Proof::kNotCreated, Proof::kReleased, Proof::kCounts};

S Expected(Given given, Proof proof) {
  const bool created = proof == Proof::kCreated;
  const bool counts = proof == Proof::kCounts;
  switch (given) {
    case Given::kNothing:
      return S::kNotFound;
    case Given::kSending:
      return S::kStillRuns;
    case Given::kUnknown:
      return counts ? S::kCounted : S::kSettled;
    case Given::kUnknownConfirmed:
      if (counts) return S::kSaysSo;
      return created ? S::kSettled : S::kConflict;
    case Given::kSucceeded:
      return created || counts ? S::kSaysSo : S::kConflict;
    case Given::kSucceededOther:
      return counts ? S::kSaysSo : S::kConflict;
    case Given::kFailed:
    case Given::kReleased:
      return created || counts ? S::kConflict : S::kSaysSo;
  }
  return S::kUnavailable;
}

void Prepare(Session& session, Given given) {
  if (given == Given::kNothing) return;
  ASSERT_EQ(session.Begin({}).verdict, BeginVerdict::kGo);
  switch (given) {
    case Given::kUnknown:
      session.Finish(Unknown(kRow));
      break;
    case Given::kUnknownConfirmed:
      session.Finish(Unknown(kRow, true));
      break;
    case Given::kSucceeded:
      session.Finish(Succeeded(kRow, "intent-7"));
      break;
    case Given::kSucceededOther:
      session.Finish(Succeeded(kRow, "intent-8"));
      break;
    case Given::kFailed:
      session.Finish(Failed(kRow));
      break;
    case Given::kReleased:
      session.Finish(Released(kRow));
      break;
    default:
      break;
  }
}

SettleRequest RequestOf(Proof proof) {
  if (proof == Proof::kCreated) return ProofOf(kRow);
  if (proof == Proof::kCounts) {
    SettleRequest request = ProofOfNone(kRow, State::kUnknown);
    request.answer.confirmed = true;
    return request;
  }
  return ProofOfNone(kRow, proof == Proof::kReleased ? State::kReleased : State::kFailed);
}

class SettleTest : public testing::TestWithParam<StoreKind> {
 protected:
  const std::unique_ptr<Store> store_ = GetParam().make();
  Session session_{*store_};

  std::vector<int64_t> Revisions(int64_t after = 0) {
    std::vector<int64_t> revisions;
    for (const ChangeFeed::Changed& changed : session_.ReadChanges({.caller = "one", .after = after}).changed) {
      revisions.push_back(changed.revision);
    }
    return revisions;
  }
};
INSTANTIATE_TEST_SUITE_P(Stores, SettleTest, testing::ValuesIn(StoreKinds()),
                         [](const auto& each) { return each.param.name; });

class SettleTable : public testing::TestWithParam<std::tuple<StoreKind, Given, Proof>> {};
INSTANTIATE_TEST_SUITE_P(All, SettleTable,
                         testing::Combine(testing::ValuesIn(StoreKinds()), testing::ValuesIn(kGivens),
                                          testing::ValuesIn(kProofs)),
                         [](const auto& each) {
                           return std::get<0>(each.param).name + "_" +
                                  std::to_string(static_cast<int>(std::get<1>(each.param))) + "_" +
                                  std::to_string(static_cast<int>(std::get<2>(each.param)));
                         });

TEST_P(SettleTable, IsAsTheContractSays) {
  const auto& [kind, given, proof] = GetParam();
  const std::unique_ptr<Store> store = kind.make();
  Session session(*store);
  Prepare(session, given);
  const std::optional<Record> before = session.Get(kRow).record;
  const int64_t logged = store->logged();
  const SettleRequest request = RequestOf(proof);
  const S want = Expected(given, proof);
  if (want == S::kNotFound) {
    EXPECT_EQ(session.TrySettle(request).code(), absl::StatusCode::kNotFound);
    return;
  }
  const SettleAnswer answer = session.Settle(request);
  ASSERT_EQ(answer.verdict, want);
  const GetAnswer after = session.Get(kRow);
  EXPECT_EQ(answer.record.state, after.record->state);
  if (want != S::kSettled && want != S::kCounted) {
    EXPECT_EQ(after.record->state, before->state);
    EXPECT_EQ(after.record->updated, before->updated);
    EXPECT_EQ(after.record->answer.user_intent_id, before->answer.user_intent_id);
    EXPECT_EQ(store->logged(), logged);
    return;
  }
  EXPECT_EQ(store->logged(), logged + 1);
  EXPECT_EQ(after.record->state, request.state);
  EXPECT_EQ(after.record->sent, Sent::kYes);
  EXPECT_EQ(after.record->reason, request.state == State::kSucceeded ? 0 : 16);
  EXPECT_EQ(after.record->answer.user_intent_id, request.answer.user_intent_id);
  const bool made = request.state == State::kSucceeded || want == S::kCounted;
  EXPECT_EQ(after.record->answer.confirmed, made);
  EXPECT_EQ(after.record->updated, request.now);
  EXPECT_EQ(after.budget.used_min, made ? 1 : 0);
  EXPECT_EQ(after.budget.used_max, request.state == State::kReleased ? 0 : 1);
  // Once more says so.
  EXPECT_EQ(session.Settle(request).verdict, S::kSaysSo);
}

TEST_P(SettleTest, AnIntentOfAnotherPostIsNoProof) {
  Prepare(session_, Given::kUnknown);
  SettleRequest request = RequestOf(Proof::kCreated);
  request.intent_of_another = true;
  const SettleAnswer answer = session_.Settle(request);
  EXPECT_EQ(answer.verdict, S::kConflict);
  EXPECT_EQ(answer.record.state, State::kUnknown);
  EXPECT_EQ(session_.Get(kRow).record->state, State::kUnknown);
}

TEST_P(SettleTest, AProofOfAnotherPostSettlesNothing) {
  session_.Run({}, [](const Key& key) { return Unknown(key); });
  EXPECT_EQ(session_.TrySettle(ProofOf(kRow, "intent-7", 1001)).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(session_.TrySettle(ProofOf({"two", Id(1)})).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(session_.Get(kRow).record->state, State::kUnknown);
}

TEST_P(SettleTest, WhatIsNoProofIsRefused) {
  session_.Run({}, [](const Key& key) { return Unknown(key); });
  std::vector<SettleRequest> wrong(8, ProofOf(kRow));
  wrong[0].state = State::kUnknown;
  wrong[1].state = State::kSending;
  wrong[2].answer.user_intent_id = "";
  wrong[3].answer.user_intent_id = "a\nb";
  wrong[4].evidence = "";
  wrong[5].evidence = std::string(1025, 'a');
  wrong[6].action = "";
  wrong[7] = ProofOfNone(kRow);
  wrong[7].answer.user_intent_id = "intent-7";
  for (size_t i = 0; i < wrong.size(); ++i) {
    EXPECT_EQ(session_.TrySettle(wrong[i]).code(), absl::StatusCode::kInvalidArgument) << i;
  }
  EXPECT_EQ(session_.Get(kRow).record->state, State::kUnknown);
}

TEST_P(SettleTest, AReadingComesWithTheProof) {
  session_.Run({}, [](const Key& key) { return Unknown(key); });
  SettleRequest proof = ProofOf(kRow);
  proof.reading = Said("converted_to_user", 30, "user-1", 2);
  const Reading latest = session_.Settle(proof).record.latest;
  EXPECT_EQ(latest.astra_status, "converted_to_user");
  EXPECT_EQ(latest.user_id, "user-1");
  EXPECT_EQ(latest.read_at, At(30));
  EXPECT_EQ(session_.Get(kRow).record->latest.astra_status, "converted_to_user");
  EXPECT_EQ(Revisions(), (std::vector<int64_t>{2}));  // UNKNOWN, then this: one
  // One that only says so brings its reading all the same.
  proof.reading = Said("suspended", 40, "user-1", 2);
  EXPECT_EQ(session_.Settle(proof).verdict, S::kSaysSo);
  EXPECT_EQ(session_.Get(kRow).record->latest.astra_status, "suspended");
  EXPECT_EQ(Revisions(), (std::vector<int64_t>{3}));
}

TEST_P(SettleTest, AReleaseFreesWhatTheRowReplaced) {
  session_.Run({}, [](const Key& key) { return Unknown(key); });
  session_.Run({.id = 2, .supersedes = 1, .attempt = 1002}, [](const Key& key) { return Unknown(key); });
  EXPECT_EQ(session_.Begin({.id = 3}).verdict, BeginVerdict::kEmailUnresolved);
  EXPECT_EQ(session_.Settle(ProofOfNone({"one", Id(2)}, State::kReleased, 1002)).verdict, S::kSettled);
  EXPECT_FALSE(session_.Get(kRow).record->superseded_by);
  // The first one is unresolved again, and is in the way.
  const BeginAnswer answer = session_.Begin({.id = 3});
  EXPECT_EQ(answer.verdict, BeginVerdict::kEmailUnresolved);
  EXPECT_EQ(answer.unresolved, Id(1));
}

TEST_P(SettleTest, WhatWasReplacedAndIsReleasedIsSeenWhenItRunsAgain) {
  session_.Run({}, [](const Key& key) { return Unknown(key); });
  session_.Run({.id = 2, .supersedes = 1}, Failed);
  EXPECT_EQ(session_.Settle(ProofOfNone(kRow, State::kReleased)).verdict, S::kSettled);
  // Its second POST is another one than the one that was knowingly replaced.
  session_.Run({.attempt = 1003}, [](const Key& key) { return Unknown(key); });
  EXPECT_EQ(session_.Begin({.id = 3}).verdict, BeginVerdict::kEmailUnresolved);
}

TEST_P(SettleTest, ChangesAreInOrderAndFolded) {
  session_.Run({}, Failed);
  session_.Run({.id = 2, .email = "b@example.com"}, [](const Key& key) { return Unknown(key); });
  session_.Run({.caller = "two", .id = 3, .email = "c@example.com"}, Failed);
  session_.Run({.id = 4, .email = "d@example.com"}, [](const Key& key) { return Succeeded(key); });
  EXPECT_TRUE(session_.RecordReading({"one", Id(4)}, Said("document", 50)).ok());
  EXPECT_TRUE(session_.RecordReading({"one", Id(4)}, Said("document", 60)).ok());  // no news
  session_.Settle(ProofOf({"one", Id(2)}));
  ChangeFeed::Answer answer = session_.ReadChanges({.caller = "one"});
  EXPECT_TRUE(answer.available);
  EXPECT_FALSE(answer.too_old);
  EXPECT_EQ(answer.upto, 6);
  ASSERT_EQ(answer.changed.size(), 3u);
  EXPECT_EQ(answer.changed[0].revision, 1);
  EXPECT_EQ(answer.changed[1].revision, 5);
  EXPECT_EQ(answer.changed[1].record.latest.astra_status, "document");
  EXPECT_EQ(answer.changed[1].record.latest.read_at, At(60));
  EXPECT_EQ(answer.changed[2].revision, 6);
  EXPECT_EQ(answer.changed[2].record.state, State::kSucceeded);
  EXPECT_EQ(answer.changed[2].budget.used_min, 1);
  // In slices, from where one stood, and some of them only.
  answer = session_.ReadChanges({.caller = "one", .limit = 1});
  EXPECT_EQ(answer.upto, 1);
  ASSERT_EQ(answer.changed.size(), 1u);
  EXPECT_EQ(Revisions(5), (std::vector<int64_t>{6}));
  EXPECT_TRUE(Revisions(6).empty());
  const auto only = std::make_shared<const absl::flat_hash_set<Uuid>>(absl::flat_hash_set<Uuid>{Id(4), Id(3)});
  answer = session_.ReadChanges({.caller = "one", .only = only});
  ASSERT_EQ(answer.changed.size(), 1u);
  EXPECT_EQ(answer.changed[0].record.key.request_id, Id(4));
  EXPECT_EQ(answer.upto, 6);
  EXPECT_TRUE(session_.ReadChanges({.caller = "nobody"}).changed.empty());
  EXPECT_TRUE(session_.ReadChanges({.caller = "one", .after = 7}).too_old);
  EXPECT_TRUE(session_.ReadChanges({.caller = "one", .after = -1}).too_old);
}

TEST_P(SettleTest, ATraceFindsARowInEveryState) {
  const std::vector<std::function<FinishRequest(const Key&)>> ends = {
      [](const Key& key) { return Succeeded(key, "intent-0"); }, Failed, [](const Key& key) { return Unknown(key); },
      [](const Key& key) { return Released(key); }};
  for (int i = 0; i < 5; ++i) {
    const Call call{.caller = i % 2 == 0 ? "one" : "two",
                    .id = i,
                    .email = std::to_string(i) + "@example.com",
                    .attempt = 500 + i,
                    .at = i};
    ASSERT_EQ(session_.Begin(call).verdict, BeginVerdict::kGo);
    if (i < 4) session_.Finish(ends[static_cast<size_t>(i)](call.key_of()));
  }
  for (int i = 0; i < 5; ++i) {
    const TraceAnswer answer = session_.Trace({.attempt_id = Id(500 + i), .since = At(0)});
    ASSERT_TRUE(answer.by_attempt) << i;
    EXPECT_EQ(answer.by_attempt->key.request_id, Id(i));
    EXPECT_FALSE(answer.by_intent);
    EXPECT_FALSE(answer.more);
  }
  EXPECT_FALSE(session_.Trace({.attempt_id = Id(500), .since = At(1)}).by_attempt);  // too old to be searched
  EXPECT_FALSE(session_.Trace({.attempt_id = Id(600), .since = At(0)}).by_attempt);
  TraceAnswer answer = session_.Trace({.intent = "intent-0", .since = At(9)});
  ASSERT_TRUE(answer.by_intent);
  EXPECT_EQ(answer.by_intent->key.request_id, Id(0));
  EXPECT_FALSE(answer.by_attempt);
  answer = session_.Trace({.intent = "intent-0", .attempt_id = Id(500), .since = At(9)});
  EXPECT_TRUE(answer.by_attempt);
  EXPECT_FALSE(session_.Trace({.intent = "intent-1", .since = At(0)}).by_intent);
}

TEST_P(SettleTest, SucceededRowsAreListedInSlices) {
  for (int i = 1; i <= 9; ++i) {
    const Call call{.id = i, .email = std::to_string(i) + "@example.com", .at = i};
    ASSERT_EQ(session_.Begin(call).verdict, BeginVerdict::kGo);
    if (i != 6) session_.Finish(Succeeded(call.key_of(), "intent-" + std::to_string(i)));
  }
  std::vector<Uuid> seen;
  SucceededRequest request{.since = At(4), .limit = 2};
  for (int slices = 0; slices < 20; ++slices) {
    const SucceededAnswer answer = session_.ListSucceeded(request);
    EXPECT_LE(answer.records.size(), 2u);
    for (const Record& record : answer.records) seen.push_back(record.key.request_id);
    request.cursor = answer.cursor;
    if (!answer.more) break;
  }
  EXPECT_EQ(seen, (std::vector<Uuid>{Id(4), Id(5), Id(7), Id(8), Id(9)}));
  EXPECT_TRUE(session_.ListSucceeded({.since = At(10)}).records.empty());
}

}  // namespace
}  // namespace userintent::ledger
