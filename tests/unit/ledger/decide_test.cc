// Every decision of ledger::Decide, over every Store.
#include "gmock/gmock.h"
#include "server/ledger/execute.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using V = BeginVerdict;

// One decision: what was there, who asks, what must come.
struct Case {
  std::string name;
  std::function<void(Session&)> given;
  Call call;
  V want;
  int used_min = 0;
  int used_max = 0;
  std::string existing = {};
  std::optional<int> unresolved = std::nullopt;
};

void PrintTo(const Case& decision, std::ostream* out) { *out << decision.name; }

Key Mine(int id) { return {"one", Id(id)}; }
FinishRequest Done(const Key& key) { return Succeeded(key); }
FinishRequest Maybe(const Key& key) { return Unknown(key); }
FinishRequest Surely(const Key& key) { return Unknown(key, true); }
FinishRequest Back(const Key& key) { return Released(key); }

MATCHER_P5(IsReading, status, user_id, verification_type, since, read_at, "") {
  *result_listener << arg.astra_status << ' ' << arg.user_id << ' ' << arg.verification_type << ' ' << arg.status_since
                   << ' ' << arg.read_at;
  return arg.astra_status == status && arg.user_id == user_id && arg.verification_type == verification_type &&
         arg.status_since == At(since) && arg.read_at == At(read_at);
}

// In the contract's order of checks. The call under test has id 1 and caller "one" where nothing else is said.
std::vector<Case> Decisions() {
  return {
      {"nothing_known", [](Session&) {}, {}, V::kGo, 0, 1},
      {"nothing_known_look_only", [](Session&) {}, {.may_start = false}, V::kWouldGo, 0, 0},

      // 1. The id's own row.
      {"own_sending", [](Session& s) { s.Begin({}); }, {}, V::kInProgress, 0, 1},
      {"own_sending_other_content", [](Session& s) { s.Begin({}); }, {.ip = "8.8.4.4"}, V::kReused, 0, 1},
      {"own_succeeded", [](Session& s) { s.Run({}, Done); }, {}, V::kRecorded, 1, 1},
      {"own_succeeded_other_content", [](Session& s) { s.Run({}, Done); }, {.ip = "8.8.4.4"}, V::kReused, 1, 1},
      {"own_succeeded_look_only", [](Session& s) { s.Run({}, Done); }, {.may_start = false}, V::kRecorded, 1, 1},
      {"own_failed", [](Session& s) { s.Run({}, Failed); }, {}, V::kRecorded, 0, 1},
      {"own_unknown", [](Session& s) { s.Run({}, Maybe); }, {}, V::kRecorded, 0, 1},
      {"own_unknown_confirmed", [](Session& s) { s.Run({}, Surely); }, {}, V::kRecorded, 1, 1},
      {"own_released", [](Session& s) { s.Run({}, Back); }, {}, V::kGo, 0, 1},
      {"own_released_look_only", [](Session& s) { s.Run({}, Back); }, {.may_start = false}, V::kWouldGo, 0, 0},
      {"own_released_other_content", [](Session& s) { s.Run({}, Back); }, {.ip = "8.8.4.4"}, V::kReused, 0, 0},
      {"own_reused_for_other_email",
       [](Session& s) { s.Run({}, Done); },
       {.email = "b@example.com"},
       V::kReused,
       0,  // the budget is that of the address asked about
       0},
      {"own_replay_beats_exhausted", [](Session& s) { s.Run({}, Done); }, {.limit = 1}, V::kRecorded, 1, 1},
      {"own_replay_with_supersedes_and_allow_repeat",
       [](Session& s) { s.Run({}, Done); },
       {.supersedes = 9, .allow_repeat = true},
       V::kRecorded,
       1,
       1},
      {"own_reuse_beats_person_exists",
       [](Session& s) {
         s.Run({}, Back);
         s.Run({.id = 2}, Done);
       },
       {.ip = "8.8.4.4"},
       V::kReused,
       1,
       1},
      {"other_callers_row_of_the_same_id_is_not_own",
       [](Session& s) { s.Run({.caller = "two"}, Failed); },
       {.person = "bob"},
       V::kGo,
       0,
       2},

      // 2. Person exists.
      {"person_created_by_this_caller",
       [](Session& s) { s.Run({.id = 2}, Done); },
       {},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"person_created_with_another_ip",
       [](Session& s) { s.Run({.id = 2, .ip = "8.8.4.4"}, Done); },
       {},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"person_created_by_another_caller",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Done); },
       {},
       V::kPersonExists,
       1,
       1},
      {"person_created_by_another_caller_under_the_same_id",
       [](Session& s) { s.Run({.caller = "two"}, Done); },
       {},
       V::kPersonExists,
       1,
       1},
      // Another caller's person is told in place of "go" alone, so that no guess is free.
      {"anothers_person_look_only",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Done); },
       {.may_start = false},
       V::kWouldGo,
       1,
       1},
      {"anothers_person_when_exhausted",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Done); },
       {.limit = 1},
       V::kExhausted,
       1,
       1},
      {"anothers_person_when_busy",
       [](Session& s) {
         s.Run({.caller = "two", .id = 2}, Done);
         s.Begin({.id = 3, .person = "bob"});
       },
       {},
       V::kEmailBusy,
       1,
       2},
      {"anothers_person_when_unresolved",
       [](Session& s) {
         s.Run({.caller = "two", .id = 2}, Done);
         s.Run({.id = 3, .person = "bob"}, Maybe);
       },
       {},
       V::kEmailUnresolved,
       1,
       2,
       {},
       3},
      {"anothers_person_while_superseding_nothing",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Done); },
       {.supersedes = 9},
       V::kSupersedesInvalid,
       1,
       1},
      {"person_created_by_both_callers_look_only",
       [](Session& s) {
         s.Run({.id = 2}, [](const Key& key) { return Succeeded(key, "mine"); });
         s.Run({.caller = "two", .id = 3, .allow_repeat = true, .at = 9},
               [](const Key& key) { return Succeeded(key, "theirs"); });
       },
       {.may_start = false},
       V::kPersonExists,
       2,
       2,
       "mine"},
      {"person_created_by_both_callers",
       [](Session& s) {
         s.Run({.id = 2}, [](const Key& key) { return Succeeded(key, "mine"); });
         s.Run({.caller = "two", .id = 3, .allow_repeat = true, .at = 9},
               [](const Key& key) { return Succeeded(key, "theirs"); });
       },
       {},
       V::kPersonExists,
       2,
       2,
       "mine"},
      {"person_exists_look_only",
       [](Session& s) { s.Run({.id = 2}, Done); },
       {.may_start = false},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"person_exists_but_repeat_allowed",
       [](Session& s) { s.Run({.id = 2}, Done); },
       {.allow_repeat = true},
       V::kGo,
       1,
       2},
      {"person_only_rejected_before", [](Session& s) { s.Run({.id = 2}, Failed); }, {}, V::kGo, 0, 2},
      {"person_other_details", [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); }, {}, V::kGo, 1, 2},
      {"person_exists_beats_exhausted",
       [](Session& s) { s.Run({.id = 2}, Done); },
       {.limit = 1},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"person_exists_beats_busy",
       [](Session& s) {
         s.Run({.id = 2}, Done);
         s.Begin({.id = 3, .allow_repeat = true});
       },
       {},
       V::kPersonExists,
       1,
       2,
       "intent-1"},
      {"superseded_row_succeeded_meanwhile",
       [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); },
       {.supersedes = 2},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"superseded_row_succeeded_meanwhile_repeat_allowed",
       [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); },
       {.supersedes = 2, .allow_repeat = true},
       V::kPersonExists,
       1,
       1,
       "intent-1"},
      {"superseded_row_succeeded_for_another_email",
       [](Session& s) { s.Run({.id = 2, .email = "b@example.com"}, Done); },
       {.supersedes = 2},
       V::kSupersedesInvalid},
      {"superseded_row_succeeded_for_another_caller",
       [](Session& s) { s.Run({.caller = "two", .id = 2, .person = "bob"}, Done); },
       {.supersedes = 2},
       V::kSupersedesInvalid,
       1,
       1},

      // 3. Exhausted.
      {"exhausted_at_limit",
       [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); },
       {.limit = 1},
       V::kExhausted,
       1,
       1},
      {"not_exhausted_below_limit",
       [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); },
       {.limit = 2},
       V::kGo,
       1,
       2},
      {"no_limit", [](Session& s) { s.Run({.id = 2, .person = "bob"}, Done); }, {.limit = 0}, V::kGo, 1, 2},
      {"exhausted_counts_all_callers",
       [](Session& s) { s.Run({.caller = "two", .id = 2, .person = "bob"}, Done); },
       {.limit = 1},
       V::kExhausted,
       1,
       1},
      {"exhausted_by_confirmed_unknown",
       [](Session& s) { s.Run({.id = 2}, Surely); },
       {.limit = 1},
       V::kExhausted,
       1,
       1},
      {"rejections_do_not_exhaust",
       [](Session& s) {
         for (int id = 2; id < 6; ++id) s.Run({.id = id}, Failed);
       },
       {.limit = 1},
       V::kGo,
       0,
       5},
      {"three_used",
       [](Session& s) {
         for (int id = 2; id < 5; ++id) s.Run({.id = id, .allow_repeat = true}, Done);
       },
       {.allow_repeat = true},
       V::kExhausted,
       3,
       3},
      {"exhausted_beats_busy",
       [](Session& s) {
         s.Run({.id = 2, .person = "bob"}, Done);
         s.Begin({.id = 3});
       },
       {.limit = 1},
       V::kExhausted,
       1,
       2},
      {"other_email_is_not_counted",
       [](Session& s) { s.Run({.id = 2, .email = "b@example.com"}, Done); },
       {.limit = 1},
       V::kGo,
       0,
       1},

      // 4. Busy.
      {"busy_with_this_caller", [](Session& s) { s.Begin({.id = 2}); }, {}, V::kEmailBusy, 0, 1},
      {"busy_with_another_caller", [](Session& s) { s.Begin({.caller = "two"}); }, {}, V::kEmailBusy, 0, 1},
      {"busy_look_only", [](Session& s) { s.Begin({.id = 2}); }, {.may_start = false}, V::kEmailBusy, 0, 1},
      {"busy_with_another_email", [](Session& s) { s.Begin({.id = 2, .email = "b@example.com"}); }, {}, V::kGo, 0, 1},
      {"busy_beats_supersedes_invalid", [](Session& s) { s.Begin({.id = 2}); }, {.supersedes = 9}, V::kEmailBusy, 0, 1},
      {"busy_when_superseding_a_running_row",
       [](Session& s) { s.Begin({.id = 2}); },
       {.supersedes = 2},
       V::kEmailBusy,
       0,
       1},
      {"busy_also_for_a_released_row",
       [](Session& s) {
         s.Run({}, Back);
         s.Begin({.id = 2});
       },
       {},
       V::kEmailBusy,
       0,
       1},

      // 5. Unresolved.
      {"unresolved_of_this_caller", [](Session& s) { s.Run({.id = 2}, Maybe); }, {}, V::kEmailUnresolved, 0, 1, {}, 2},
      {"unresolved_of_this_caller_confirmed",
       [](Session& s) { s.Run({.id = 2}, Surely); },
       {},
       V::kEmailUnresolved,
       1,
       1,
       {},
       2},
      {"unresolved_of_another_caller",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Maybe); },
       {},
       V::kEmailUnresolved,
       0,
       1},
      {"unresolved_look_only",
       [](Session& s) { s.Run({.id = 2}, Maybe); },
       {.may_start = false},
       V::kEmailUnresolved,
       0,
       1,
       {},
       2},
      {"unresolved_of_another_email",
       [](Session& s) { s.Run({.id = 2, .email = "b@example.com"}, Maybe); },
       {},
       V::kGo,
       0,
       1},
      {"repeat_allowed_does_not_help",
       [](Session& s) { s.Run({.id = 2}, Maybe); },
       {.allow_repeat = true},
       V::kEmailUnresolved,
       0,
       1,
       {},
       2},
      {"supersedes_the_unresolved", [](Session& s) { s.Run({.id = 2}, Maybe); }, {.supersedes = 2}, V::kGo, 0, 2},
      {"supersedes_look_only",
       [](Session& s) { s.Run({.id = 2}, Maybe); },
       {.supersedes = 2, .may_start = false},
       V::kWouldGo,
       0,
       1},
      {"supersedes_nothing_known", [](Session&) {}, {.supersedes = 2}, V::kSupersedesInvalid},
      {"supersedes_itself", [](Session& s) { s.Run({}, Back); }, {.supersedes = 1}, V::kSupersedesInvalid},
      {"supersedes_a_released", [](Session& s) { s.Run({.id = 2}, Back); }, {.supersedes = 2}, V::kSupersedesInvalid},
      {"supersedes_a_rejected",
       [](Session& s) { s.Run({.id = 2}, Failed); },
       {.supersedes = 2},
       V::kSupersedesInvalid,
       0,
       1},
      {"supersedes_the_wrong_one",
       [](Session& s) { s.Run({.id = 2}, Maybe); },
       {.supersedes = 9},
       V::kSupersedesInvalid,
       0,
       1,
       {},
       2},
      {"supersedes_another_callers",
       [](Session& s) { s.Run({.caller = "two", .id = 2}, Maybe); },
       {.supersedes = 2},
       V::kSupersedesInvalid,
       0,
       1},
      {"supersedes_another_emails",
       [](Session& s) { s.Run({.id = 2, .email = "b@example.com"}, Maybe); },
       {.supersedes = 2},
       V::kSupersedesInvalid},
      {"supersedes_what_is_superseded",
       [](Session& s) {
         s.Run({.id = 2}, Maybe);
         s.Run({.id = 3, .supersedes = 2}, Maybe);
       },
       {.supersedes = 2},
       V::kSupersedesInvalid,
       0,
       2,
       {},
       3},
      {"supersedes_the_end_of_a_chain",
       [](Session& s) {
         s.Run({.id = 2}, Maybe);
         s.Run({.id = 3, .supersedes = 2}, Maybe);
       },
       {.supersedes = 3},
       V::kGo,
       0,
       3},
      {"superseded_by_a_rejected_one",
       [](Session& s) {
         s.Run({.id = 2}, Maybe);
         s.Run({.id = 3, .supersedes = 2}, Failed);
       },
       {},
       V::kGo,
       0,
       3},
      {"superseding_call_was_not_sent",
       [](Session& s) {
         s.Run({.id = 2}, Maybe);
         s.Run({.id = 3, .supersedes = 2}, Back);
       },
       {},
       V::kEmailUnresolved,
       0,
       1,
       {},
       2},
  };
}

class DecisionTest : public testing::TestWithParam<std::tuple<StoreKind, Case>> {};

TEST_P(DecisionTest, IsAsWritten) {
  const std::unique_ptr<Store> store = std::get<0>(GetParam()).make();
  const Case& decision = std::get<1>(GetParam());
  Session session(*store);
  decision.given(session);
  const GetAnswer before = session.Get(decision.call.key_of());
  const BeginAnswer answer = session.Begin(decision.call);
  EXPECT_EQ(answer.verdict, decision.want);
  EXPECT_EQ(answer.budget.used_min, decision.used_min);
  EXPECT_EQ(answer.budget.used_max, decision.used_max);
  EXPECT_EQ(answer.existing_intent_id, decision.existing);
  EXPECT_EQ(answer.unresolved, decision.unresolved ? std::optional<Uuid>(Id(*decision.unresolved)) : std::nullopt);
  EXPECT_FALSE(answer.joined);

  const GetAnswer after = session.Get(decision.call.key_of());
  if (answer.verdict == V::kGo) {
    ASSERT_TRUE(answer.own && after.record);
    EXPECT_EQ(after.record->state, State::kSending);
    EXPECT_EQ(after.record->posts, before.record ? before.record->posts + 1 : 1);
    EXPECT_EQ(after.record->attempt_id, Id(decision.call.attempt));
    EXPECT_EQ(answer.own->attempt_id, Id(decision.call.attempt));
  } else {  // a refusal changes nothing
    ASSERT_EQ(before.record.has_value(), after.record.has_value());
    EXPECT_EQ(answer.own.has_value(), before.record.has_value());
    if (before.record) {
      EXPECT_EQ(before.record->state, after.record->state);
      EXPECT_EQ(before.record->posts, after.record->posts);
      EXPECT_EQ(before.record->updated, after.record->updated);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Decide, DecisionTest,
                         testing::Combine(testing::ValuesIn(StoreKinds()), testing::ValuesIn(Decisions())),
                         [](const auto& each) {
                           return std::get<0>(each.param).name + "_" + std::get<1>(each.param).name;
                         });

class RowTest : public testing::TestWithParam<StoreKind> {
 protected:
  std::unique_ptr<Store> store_ = GetParam().make();
  Session s_{*store_};
};
INSTANTIATE_TEST_SUITE_P(Decide, RowTest, testing::ValuesIn(StoreKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(RowTest, ASuccessIsKeptWhole) {
  s_.Begin({.verification_type = 2, .attempt = 77, .at = 1});
  const FinishAnswer finished = s_.Finish(Succeeded(Mine(1)));
  EXPECT_TRUE(finished.committed);
  EXPECT_EQ(finished.budget.used_min, 1);
  EXPECT_EQ(finished.budget.used_max, 1);
  const GetAnswer got = s_.Get(Mine(1));
  ASSERT_TRUE(got.available && got.record);
  for (const Record& record : {finished.record, *got.record}) {
    EXPECT_EQ(record.key, Mine(1));
    EXPECT_EQ(record.state, State::kSucceeded);
    EXPECT_EQ(record.sent, Sent::kYes);
    EXPECT_EQ(record.reason, 0);
    EXPECT_EQ(record.answer.http_status, 201);
    EXPECT_TRUE(record.answer.confirmed);
    EXPECT_EQ(record.answer.user_intent_id, "intent-1");
    EXPECT_EQ(record.answer.astra_status, "pending");
    EXPECT_EQ(record.answer.astra_request_id, "req-1");
    EXPECT_EQ(record.answer.at, At(5));
    EXPECT_EQ(record.attempt_id, Id(77));
    EXPECT_EQ(record.posts, 1);
    EXPECT_EQ(record.supersedes, std::nullopt);
    EXPECT_EQ(record.superseded_by, std::nullopt);
    EXPECT_EQ(record.created, At(1));
    EXPECT_EQ(record.updated, At(5));
    EXPECT_EQ(record.verification_type, 2);
    EXPECT_THAT(record.latest, IsReading("pending", "", 2, 5, 5));
  }
}

// --- what Astra says later about an intent ---

TEST_P(RowTest, OnlyASucceededRowHasAReading) {
  EXPECT_TRUE(absl::IsNotFound(s_.RecordReading(Mine(1), Said("converted", 9))));
  s_.Begin({.id = 1, .email = "1@example.com"});
  int id = 1;
  for (const auto end : {Failed, Maybe, Surely, Back}) {
    ++id;
    s_.Run({.id = id, .email = std::to_string(id) + "@example.com"}, end);
  }
  for (; id > 0; --id) {
    EXPECT_TRUE(absl::IsFailedPrecondition(s_.RecordReading(Mine(id), Said("converted", 9)))) << id;
    EXPECT_EQ(s_.Get(Mine(id)).record->latest.read_at, absl::InfinitePast()) << id;
  }
}

TEST_P(RowTest, ALaterReadingReplacesTheLatest) {
  s_.Run({.verification_type = 2, .at = 1}, Done);
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("pending", 9)).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("pending", "", 1, 5, 9));
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 12, "user-1", 3)).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("converted", "user-1", 3, 12, 12));
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 20, "user-1", 3)).ok());
  const Record record = *s_.Get(Mine(1)).record;
  EXPECT_THAT(record.latest, IsReading("converted", "user-1", 3, 12, 20));
  // The creation's own answer, and what a repeat of it is told, stays.
  EXPECT_EQ(record.answer.astra_status, "pending");
  EXPECT_EQ(record.answer.at, At(5));
  EXPECT_EQ(record.verification_type, 2);
  EXPECT_EQ(record.updated, At(5));
  EXPECT_EQ(s_.Begin({.at = 30}).own->answer.astra_status, "pending");
}

TEST_P(RowTest, AnOlderReadingChangesNothing) {
  s_.Run({.at = 1}, Done);
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 4, "user-1")).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("pending", "", 0, 5, 5));
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 12, "user-1")).ok());
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("pending", 11)).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("converted", "user-1", 1, 12, 12));
  // One of the same time is not older.
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("cancelled", 12)).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("cancelled", "", 1, 12, 12));
}

// Replicas' clocks differ, and a clock is put back. What was begun when the row already said so comes after it.
TEST_P(RowTest, AReadingOfWhoKnewWhatIsRecordedIsNewer) {
  s_.Run({.at = 1}, Done);
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 12, "user-1")).ok());
  Reading behind = Said("cancelled", 9);
  behind.after = At(11);
  EXPECT_TRUE(s_.RecordReading(Mine(1), behind).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("converted", "user-1", 1, 12, 12)) << "it knew of less";
  behind.after = At(12);
  EXPECT_TRUE(s_.RecordReading(Mine(1), behind).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("cancelled", "", 1, 9, 9));
}

TEST_P(RowTest, AReadingSurvivesEveryOtherChangeOfItsRow) {
  s_.Run({.id = 1, .key = kOldKey}, Maybe);
  s_.Run({.id = 2, .supersedes = 1, .allow_repeat = true, .key = kOldKey}, Done);
  EXPECT_TRUE(s_.RecordReading(Mine(2), Said("converted", 12, "user-1")).ok());
  s_.Resolve(AsNotCreated(Mine(1)));
  // Its hashes move to another key; then the row that it superseded is forgotten.
  EXPECT_EQ(s_.Begin({.id = 2, .supersedes = 1, .previous = {kOldKey}}).verdict, V::kRecorded);
  EXPECT_EQ(s_.Purge(At(21), 1).purged, 1u);
  EXPECT_FALSE(s_.Get(Mine(2)).record->supersedes);
  EXPECT_THAT(s_.Get(Mine(2)).record->latest, IsReading("converted", "user-1", 1, 12, 12));
}

// An operator's word is no reading: Astra must be asked.
TEST_P(RowTest, OfAResolvedRowNothingWasRead) {
  s_.Run({.verification_type = 2}, Maybe);
  s_.Resolve(AsCreated(Mine(1)));
  const Record record = *s_.FindIntent("one", "intent-9").record;
  EXPECT_EQ(record.latest.read_at, absl::InfinitePast());
  EXPECT_EQ(record.latest.status_since, At(20));
  EXPECT_EQ(record.latest.verification_type, 2);
  EXPECT_TRUE(s_.RecordReading(Mine(1), Said("converted", 25)).ok());
  EXPECT_THAT(s_.Get(Mine(1)).record->latest, IsReading("converted", "", 1, 25, 25));
}

TEST_P(RowTest, AnIntentIsFoundByItsCallerAlone) {
  const auto as = [](const std::string& intent) { return [intent](const Key& key) { return Succeeded(key, intent); }; };
  EXPECT_FALSE(s_.FindIntent("one", "intent-1").record);
  s_.Run({.id = 1}, as("intent-1"));
  s_.Run({.caller = "two", .id = 2, .email = "b@example.com"}, as("intent-2"));
  const GetAnswer found = s_.FindIntent("one", "intent-1");
  ASSERT_TRUE(found.available && found.record);
  EXPECT_EQ(found.record->key, Mine(1));
  EXPECT_EQ(found.budget.used_min, 1);
  for (const auto& [caller, intent] : {std::pair("one", "intent-2"), std::pair("two", "intent-1"),
                                       std::pair("three", "intent-1"), std::pair("one", "")}) {
    EXPECT_TRUE(s_.FindIntent(caller, intent).available);
    EXPECT_FALSE(s_.FindIntent(caller, intent).record) << caller << intent;
  }
  // Of two rows with one intent the newer is told; once purged, none.
  s_.Run({.id = 3, .email = "c@example.com", .at = 7}, as("intent-1"));
  EXPECT_EQ(s_.FindIntent("one", "intent-1").record->key, Mine(3));
  s_.Purge(At(100));
  EXPECT_FALSE(s_.FindIntent("one", "intent-1").record);
}

TEST_P(RowTest, UnknownIdIsAvailableWithoutRecord) {
  const GetAnswer got = s_.Get(Mine(1));
  EXPECT_TRUE(got.available);
  EXPECT_FALSE(got.record);
}

TEST_P(RowTest, OnlyASendingRowCanEndAndOnlyOnce) {
  EXPECT_TRUE(absl::IsNotFound(s_.TryFinish(Succeeded(Mine(1)))));
  for (const auto& first : {Succeeded(Mine(1)), Failed(Mine(2)), Unknown(Mine(3)), Released(Mine(4))}) {
    const int id = first.key.request_id[15];
    ASSERT_EQ(s_.Begin({.id = id, .email = std::to_string(id) + "@example.com"}).verdict, V::kGo);
    s_.Finish(first);
    for (const auto& second :
         {Succeeded(first.key, "other"), Failed(first.key), Unknown(first.key), Released(first.key)}) {
      EXPECT_TRUE(absl::IsFailedPrecondition(s_.TryFinish(second)));
    }
    EXPECT_EQ(s_.Get(first.key).record->state, first.state);
    EXPECT_TRUE(absl::IsFailedPrecondition(s_.NextAttempt(first.key, 5, Sent::kNo)));
  }
  FinishRequest bad = Succeeded(Mine(1));
  bad.state = State::kSending;
  EXPECT_TRUE(absl::IsInvalidArgument(s_.TryFinish(bad)));
}

TEST_P(RowTest, RejectedIsNeverConfirmed) {
  s_.Begin({});
  FinishRequest odd = Failed(Mine(1));
  odd.answer.confirmed = true;
  EXPECT_FALSE(s_.Finish(odd).record.answer.confirmed);
  EXPECT_EQ(s_.Get(Mine(1)).budget.used_min, 0);
}

TEST_P(RowTest, TheStrongestSentCounts) {
  s_.Begin({});
  ASSERT_TRUE(s_.NextAttempt(Mine(1), 2000, Sent::kYes).ok());
  GetAnswer got = s_.Get(Mine(1));
  EXPECT_EQ(got.record->attempt_id, Id(2000));
  EXPECT_EQ(got.record->posts, 2);
  EXPECT_EQ(got.record->sent, Sent::kYes);
  EXPECT_EQ(got.budget.used_max, 1);  // one row is one attempt: the first POST was proved not to count
  ASSERT_TRUE(s_.NextAttempt(Mine(1), 2001, Sent::kNo).ok());
  EXPECT_EQ(s_.Get(Mine(1)).record->sent, Sent::kYes);
  EXPECT_EQ(s_.Finish(Released(Mine(1), Sent::kNo)).record.sent, Sent::kYes);
  EXPECT_EQ(s_.Begin({}).own->sent, Sent::kYes);
  EXPECT_EQ(s_.Finish(Unknown(Mine(1))).record.sent, Sent::kYes);
}

TEST_P(RowTest, AReleasedRowStartsAfreshAndCountsOn) {
  s_.Begin({.attempt = 50, .at = 1});
  FinishRequest busy = Released(Mine(1), Sent::kYes);
  busy.answer.http_status = 429;
  busy.answer.astra_request_id = "req-429";
  EXPECT_EQ(s_.Finish(busy).budget.used_max, 0);
  EXPECT_EQ(s_.Get(Mine(1)).record->answer.http_status, 429);
  const BeginAnswer again = s_.Begin({.attempt = 51, .at = 8});
  ASSERT_EQ(again.verdict, V::kGo);
  EXPECT_EQ(again.own->posts, 2);
  EXPECT_EQ(again.own->attempt_id, Id(51));
  EXPECT_EQ(again.own->reason, 0);
  EXPECT_EQ(again.own->answer.http_status, 0);
  EXPECT_EQ(again.own->answer.astra_request_id, "");
  EXPECT_EQ(again.own->created, At(1));
  EXPECT_EQ(again.own->updated, At(8));
  EXPECT_EQ(again.budget.used_max, 1);
}

TEST_P(RowTest, TheReasonIsKeptUnlessItSucceeded) {
  for (FinishRequest end : {Failed(Mine(1)), Unknown(Mine(2)), Released(Mine(3)), Succeeded(Mine(4))}) {
    const int id = end.key.request_id[15];
    ASSERT_EQ(s_.Begin({.id = id, .email = std::to_string(id) + "@example.com"}).verdict, V::kGo);
    if (end.state == State::kSucceeded) end.reason = 16;
    const int want = end.state == State::kSucceeded ? 0 : end.reason;
    EXPECT_EQ(s_.Finish(end).record.reason, want);
    EXPECT_EQ(s_.Get(end.key).record->reason, want);
  }
}

TEST_P(RowTest, EveryChangeOfARowIsDated) {
  s_.Run({.id = 2}, Maybe);
  s_.Begin({.id = 3, .supersedes = 2, .at = 7});
  EXPECT_EQ(s_.Get(Mine(3)).record->updated, At(7));
  EXPECT_EQ(s_.Get(Mine(2)).record->updated, At(7));
  ASSERT_TRUE(s_.NextAttempt(Mine(3), 2000, Sent::kNo, 8).ok());
  EXPECT_EQ(s_.Get(Mine(3)).record->updated, At(8));
  FinishRequest back = Released(Mine(3));
  back.now = At(9);
  s_.Finish(back);
  EXPECT_EQ(s_.Get(Mine(3)).record->updated, At(9));
  EXPECT_EQ(s_.Get(Mine(2)).record->updated, At(9));
}

TEST_P(RowTest, RecoverTurnsSendingIntoUnknownForEver) {
  s_.Run({.id = 1, .email = "b@example.com"}, Done);
  s_.Run({.id = 2, .email = "c@example.com"}, Back);
  s_.Begin({.id = 3, .email = "d@example.com"});
  s_.Begin({.id = 4, .email = "e@example.com"});
  ASSERT_TRUE(s_.NextAttempt(Mine(4), 5, Sent::kYes).ok());
  EXPECT_EQ(s_.Recover(19, 1), 1u);
  EXPECT_EQ(s_.Recover(19, 5), 1u);
  EXPECT_EQ(s_.Recover(19, 5), 0u);
  EXPECT_EQ(s_.Get(Mine(1)).record->state, State::kSucceeded);
  EXPECT_EQ(s_.Get(Mine(2)).record->state, State::kReleased);
  const GetAnswer third = s_.Get(Mine(3));
  EXPECT_EQ(third.record->state, State::kUnknown);
  EXPECT_EQ(third.record->reason, 19);
  EXPECT_EQ(third.record->sent, Sent::kMaybe);
  EXPECT_EQ(third.record->updated, At(9));
  EXPECT_EQ(third.budget.used_min, 0);
  EXPECT_EQ(third.budget.used_max, 1);
  EXPECT_EQ(s_.Get(Mine(4)).record->sent, Sent::kYes);
  EXPECT_EQ(s_.Begin({.id = 3, .email = "d@example.com"}).verdict, V::kRecorded);
  EXPECT_TRUE(absl::IsFailedPrecondition(s_.TryFinish(Succeeded(Mine(3)))));
}

TEST_P(RowTest, SupersedingMarksBothRowsAndReleaseFreesThem) {
  s_.Run({.id = 2}, Maybe);
  s_.Begin({.id = 3, .supersedes = 2});
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, Id(3));
  EXPECT_EQ(s_.Get(Mine(3)).record->supersedes, Id(2));
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kRecorded);  // its own repeats still hear UNKNOWN
  EXPECT_EQ(s_.Finish(Released(Mine(3))).budget.used_max, 1);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, std::nullopt);

  // The released row may come again, but it must say again what it replaces.
  EXPECT_EQ(s_.Begin({.id = 3}).verdict, V::kEmailUnresolved);
  EXPECT_EQ(s_.Begin({.id = 3, .supersedes = 2}).verdict, V::kGo);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, Id(3));
  EXPECT_EQ(s_.Recover(19), 1u);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, Id(3));  // 3 may have been sent: 2 stays replaced
  const BeginAnswer next = s_.Begin({.id = 4});
  EXPECT_EQ(next.verdict, V::kEmailUnresolved);
  EXPECT_EQ(next.unresolved, Id(3));
  EXPECT_EQ(next.budget.used_max, 2);  // a superseded row still may have counted
}

TEST_P(RowTest, AReleasedRowOnlyFreesWhatItReplacesNow) {
  s_.Run({.id = 2}, Maybe);
  s_.Run({.id = 3, .supersedes = 2}, Back);
  s_.Run({.id = 4, .supersedes = 2}, Failed);
  // 3 once named 2; that 2 is replaced by 4 must survive 3's next life.
  s_.Run({.id = 3}, Back);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, Id(4));
  EXPECT_EQ(s_.Get(Mine(3)).record->supersedes, std::nullopt);
}

TEST_P(RowTest, TheSameIdOfTwoCallersIsTwoRows) {
  const Call one{.caller = "one", .id = 1, .email = "a@example.com"};
  const Call two{.caller = "two", .id = 1, .email = "b@example.com", .person = "bob"};
  ASSERT_EQ(s_.Begin(one).verdict, V::kGo);
  ASSERT_EQ(s_.Begin(two).verdict, V::kGo);
  s_.Finish(Succeeded(one.key_of(), "first"));
  s_.Finish(Failed(two.key_of()));
  EXPECT_EQ(s_.Begin(one).own->answer.user_intent_id, "first");
  EXPECT_EQ(s_.Begin(two).own->state, State::kFailed);
  EXPECT_EQ(s_.Get({"three", Id(1)}).record, std::nullopt);
}

TEST_P(RowTest, ABrokenTransactionLeavesNothing) {
  s_.Run({.id = 2}, Maybe);
  ASSERT_TRUE(store_->Start().ok());
  ASSERT_EQ(Execute(*store_, Call{.id = 3, .supersedes = 2}.request())->verdict, V::kGo);
  ASSERT_EQ(Execute(*store_, Call{.id = 4, .email = "b@example.com"}.request())->verdict, V::kGo);
  store_->Rollback();
  EXPECT_FALSE(s_.Get(Mine(3)).record);
  EXPECT_FALSE(s_.Get(Mine(4)).record);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, std::nullopt);
  EXPECT_EQ(s_.Begin({.id = 3, .may_start = false}).budget.used_max, 1);
  EXPECT_EQ(s_.Begin({.id = 4, .email = "b@example.com"}).verdict, V::kGo);
  EXPECT_EQ(s_.Begin({.id = 4, .email = "b@example.com"}).verdict, V::kInProgress);
  EXPECT_EQ(s_.Get(Mine(4)).budget.used_max, 1);
}

// What a broken transaction made up (numbers of callers and addresses, in SQLite) must not be remembered either.
TEST_P(RowTest, ABrokenTransactionsNamesAreForgotten) {
  ASSERT_TRUE(store_->Start().ok());
  ASSERT_EQ(Execute(*store_, Call{.caller = "three", .email = "c@example.com"}.request())->verdict, V::kGo);
  store_->Rollback();
  EXPECT_EQ(s_.Begin({.caller = "four", .email = "d@example.com"}).verdict, V::kGo);
  EXPECT_FALSE(s_.Get({"three", Id(1)}).record);
  EXPECT_EQ(s_.Begin({.caller = "three", .email = "c@example.com"}).verdict, V::kGo);
  EXPECT_EQ(s_.Get({"three", Id(1)}).record->key.caller, "three");
  EXPECT_EQ(s_.Get({"four", Id(1)}).budget.used_max, 1);
  EXPECT_EQ(s_.Get({"three", Id(1)}).budget.used_max, 1);
}

// --- an operator resolves ---

TEST_P(RowTest, ResolvedAsCreatedIsRepeatedAsSuch) {
  FinishRequest lost = Unknown(Mine(1));
  lost.answer.astra_status = "pending";
  s_.Begin({});
  s_.Finish(lost);
  const ResolveAnswer answer = s_.Resolve(AsCreated(Mine(1)));
  EXPECT_TRUE(answer.changed);
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 1);
  const BeginAnswer replay = s_.Begin({});
  EXPECT_EQ(replay.verdict, V::kRecorded);
  EXPECT_EQ(replay.own->state, State::kSucceeded);
  EXPECT_EQ(replay.own->sent, Sent::kYes);
  EXPECT_EQ(replay.own->reason, 0);
  EXPECT_EQ(replay.own->answer.user_intent_id, "intent-9");
  EXPECT_EQ(replay.own->answer.astra_status, "");
  EXPECT_EQ(replay.own->answer.at, At(20));
  EXPECT_TRUE(replay.own->answer.confirmed);
  EXPECT_EQ(replay.own->updated, At(20));
  EXPECT_EQ(replay.own->created, At(0));
  EXPECT_EQ(replay.budget.used_min, 1);
  // The person exists now, and the address is free again.
  const BeginAnswer other = s_.Begin({.id = 2});
  EXPECT_EQ(other.verdict, V::kPersonExists);
  EXPECT_EQ(other.existing_intent_id, "intent-9");
  EXPECT_EQ(s_.Begin({.id = 2, .allow_repeat = true}).verdict, V::kGo);
}

TEST_P(RowTest, ResolvedAsNotCreatedIsNeverSentAgain) {
  FinishRequest lost = Unknown(Mine(1));
  lost.answer.http_status = 500;
  lost.answer.astra_request_id = "req-500";
  s_.Begin({});
  s_.Finish(lost);
  const ResolveAnswer answer = s_.Resolve(AsNotCreated(Mine(1)));
  EXPECT_TRUE(answer.changed);
  EXPECT_EQ(answer.budget.used_min, 0);
  EXPECT_EQ(answer.budget.used_max, 1);  // whether it counts at Astra is still not known
  const BeginAnswer repeat = s_.Begin({});
  EXPECT_EQ(repeat.verdict, V::kRecorded);
  EXPECT_EQ(repeat.own->state, State::kFailed);
  EXPECT_EQ(repeat.own->reason, 20);
  EXPECT_EQ(repeat.own->sent, Sent::kYes);
  EXPECT_EQ(repeat.own->answer.http_status, 500);
  EXPECT_EQ(repeat.own->answer.astra_request_id, "req-500");
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kGo);
}

TEST_P(RowTest, ResolvingTwiceChangesNothing) {
  s_.Run({}, Maybe);
  s_.Resolve(AsCreated(Mine(1)));
  ResolveAnswer again = s_.Resolve(AsCreated(Mine(1), "intent-9", 99));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.record.updated, At(20));
  EXPECT_EQ(again.budget.used_min, 1);
  EXPECT_THAT(std::string(s_.TryResolve(AsCreated(Mine(1), "intent-8")).message()), HasSubstr("SUCCEEDED"));
  EXPECT_THAT(std::string(s_.TryResolve(AsNotCreated(Mine(1))).message()), HasSubstr("SUCCEEDED"));
  s_.Run({.id = 2, .email = "b@example.com", .person = "bob"}, Maybe);
  s_.Resolve(AsNotCreated(Mine(2)));
  EXPECT_FALSE(s_.Resolve(AsNotCreated(Mine(2), 99)).changed);
  EXPECT_THAT(std::string(s_.TryResolve(AsCreated(Mine(2))).message()), HasSubstr("FAILED"));
  EXPECT_EQ(s_.Get(Mine(2)).record->updated, At(20));
}

TEST_P(RowTest, OnlyAnUnknownRowIsResolved) {
  s_.Begin({});
  s_.Run({.id = 2, .email = "b@example.com"}, Back);
  for (const auto& resolve : {AsCreated(Mine(1)), AsNotCreated(Mine(1))}) {
    const absl::Status refused = s_.TryResolve(resolve);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("SENDING, it still runs: wait"));
  }
  for (const auto& resolve : {AsCreated(Mine(2)), AsNotCreated(Mine(2))}) {
    EXPECT_THAT(std::string(s_.TryResolve(resolve).message()), HasSubstr("RELEASED"));
  }
  EXPECT_TRUE(absl::IsNotFound(s_.TryResolve(AsCreated(Mine(3)))));
  EXPECT_TRUE(absl::IsNotFound(s_.TryResolve(AsCreated({"two", Id(1)}))));
  EXPECT_EQ(s_.Get(Mine(1)).record->state, State::kSending);
  EXPECT_EQ(s_.Get(Mine(2)).record->state, State::kReleased);
}

TEST_P(RowTest, WhatAstraConfirmedIsNotResolvedAsNotCreated) {
  s_.Run({}, Surely);
  const absl::Status refused = s_.TryResolve(AsNotCreated(Mine(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("2xx"));
  EXPECT_EQ(s_.Get(Mine(1)).record->state, State::kUnknown);
  const ResolveAnswer created = s_.Resolve(AsCreated(Mine(1)));
  EXPECT_EQ(created.budget.used_min, 1);
  EXPECT_EQ(created.budget.used_max, 1);
}

TEST_P(RowTest, TheOutcomesThatAreAcceptedComeFromTheRuleThatJudges) {
  s_.Run({}, Maybe);
  s_.Run({.id = 2, .email = "b@example.com", .person = "bob"}, Surely);
  s_.Begin({.id = 3, .email = "c@example.com"});
  Outcomes outcomes = AcceptedOutcomes(*s_.Get(Mine(1)).record);
  EXPECT_EQ(outcomes.accepted, "created, with the intent's id, or not created");
  EXPECT_EQ(outcomes.why_not, "");
  outcomes = AcceptedOutcomes(*s_.Get(Mine(2)).record);
  EXPECT_EQ(outcomes.accepted, "created, with the intent's id");
  EXPECT_THAT(outcomes.why_not, HasSubstr("2xx"));
  EXPECT_THAT(std::string(s_.TryResolve(AsNotCreated(Mine(2))).message()),
              EndsWith("; accepted: created, with the intent's id"));
  outcomes = AcceptedOutcomes(*s_.Get(Mine(3)).record);
  EXPECT_EQ(outcomes.accepted, "");
  EXPECT_EQ(outcomes.why_not, rule::WhyNotResolve(*s_.Get(Mine(3)).record, true)) << "said once, not for each outcome";
  Rules rules;
  rules.why_not_resolve = [](const Record&, bool created) { return created ? "no" : nullptr; };
  outcomes = AcceptedOutcomes(*s_.Get(Mine(1)).record, rules);
  EXPECT_EQ(outcomes.accepted + ", " + outcomes.why_not, "not created, no");
}

TEST_P(RowTest, WordsOfAnOperatorAreChecked) {
  s_.Run({}, Maybe);
  const auto refused = [this](void (*change)(ResolveRequest&)) {
    ResolveRequest request = AsCreated(Mine(1));
    change(request);
    const absl::Status status = s_.TryResolve(request);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused([](ResolveRequest& r) { r.actor = ""; }), HasSubstr("actor must have 1 to 128"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.actor = std::string(129, 'x'); }), HasSubstr("actor must have"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.actor = "a\nb"; }), HasSubstr("actor must be printable"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.actor = "  "; }), HasSubstr("actor must not be blank"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = "   "; }), HasSubstr("evidence must not be blank"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = ""; }), HasSubstr("evidence must have 1 to 1024"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = std::string(1025, 'x'); }), HasSubstr("evidence must have"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = "a\x1b[31m"; }), HasSubstr("evidence must be printable"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = "caf\xc3\xa9"; }), HasSubstr("evidence must be printable"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.evidence = "mail of ann@example.com"; }), HasSubstr("personal data"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.created = ""; }), HasSubstr("intent id must have 1 to 256"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.created = std::string(257, 'x'); }), HasSubstr("intent id"));
  EXPECT_THAT(refused([](ResolveRequest& r) { r.created = "a\tb"; }), HasSubstr("intent id"));
  EXPECT_EQ(s_.Get(Mine(1)).record->state, State::kUnknown);
  ResolveRequest longest = AsCreated(Mine(1), std::string(256, 'x'));
  longest.actor = std::string(128, 'x');
  longest.evidence = std::string(1023, ' ') + "x";
  EXPECT_TRUE(s_.Resolve(longest).changed);
}

TEST_P(RowTest, SupersededRowsAreResolvedEachForItself) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Maybe);
  EXPECT_EQ(s_.Resolve(AsCreated(Mine(1), "first")).budget.used_min, 1);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, Id(2));
  EXPECT_EQ(s_.Get(Mine(2)).record->supersedes, Id(1));
  // The other one still blocks.
  EXPECT_EQ(s_.Begin({.id = 3, .allow_repeat = true}).unresolved, Id(2));
  EXPECT_EQ(s_.Resolve(AsCreated(Mine(2), "second")).budget.used_min, 2);
  EXPECT_EQ(s_.Begin({.id = 3, .allow_repeat = true}).verdict, V::kGo);
}

TEST_P(RowTest, AResolvedRowIsNoLongerOpenWhenItsSuccessorIsReleased) {
  s_.Run({.id = 1}, Maybe);
  s_.Begin({.id = 2, .supersedes = 1});
  s_.Resolve(AsNotCreated(Mine(1)));
  s_.Finish(Released(Mine(2)));
  EXPECT_EQ(s_.Get(Mine(1)).record->state, State::kFailed);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt);
  EXPECT_EQ(s_.Begin({.id = 3}).verdict, V::kGo);
}

// --- superseding another caller's request ---

TEST_P(RowTest, AnothersRequestIsSupersededByRightAlone) {
  s_.Run({.id = 1}, Maybe);
  const Call call{.caller = "two", .id = 9, .supersedes = 1};
  EXPECT_EQ(s_.Begin(call).verdict, V::kSupersedesInvalid);
  Call bold = call;
  bold.supersedes_others = true;
  bold.may_start = false;
  EXPECT_EQ(s_.Begin(bold).verdict, V::kWouldGo);
  bold.may_start = true;
  bold.supersedes = 7;
  EXPECT_EQ(s_.Begin(bold).verdict, V::kSupersedesInvalid) << "nobody's";
  bold.supersedes = 1;
  bold.email = "other@example.com";
  EXPECT_EQ(s_.Begin(bold).verdict, V::kSupersedesInvalid) << "of another address";
  bold.email = call.email;
  EXPECT_EQ(s_.Begin(bold).verdict, V::kGo);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, Id(9));
  EXPECT_EQ(s_.Begin({.id = 1}).verdict, V::kRecorded) << "its own repeats hear what they heard";

  // Not sent after all: it blocks again, and may be superseded again.
  s_.Finish(Released({"two", Id(9)}));
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt);
  EXPECT_EQ(s_.Begin({.caller = "three", .id = 3}).verdict, V::kEmailUnresolved);
  EXPECT_EQ(s_.Begin(bold).verdict, V::kGo);
  s_.Finish(Succeeded({"two", Id(9)}, "theirs"));
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, Id(9));
  const BeginAnswer next = s_.Begin({.caller = "three", .id = 3, .person = "carl"});
  EXPECT_EQ(next.verdict, V::kGo);
  EXPECT_EQ(next.budget.used_min, 1);
  EXPECT_EQ(next.budget.used_max, 3) << "what was superseded still counts";
}

TEST(PureDecideTest, SupersedingAnothersRequestIsAudited) {
  const Call theirs{.id = 1};
  View view;
  Row& row = view.open.emplace_back();
  row.record.key = theirs.key_of();
  row.record.state = State::kUnknown;
  row.email = theirs.request().current.email;
  BeginRequest request = Call{.caller = "two", .id = 9, .supersedes = 1, .supersedes_others = true, .at = 77}.request();
  Decision<BeginAnswer> decision = Decide(view, request);
  EXPECT_EQ(decision.answer.verdict, V::kGo);
  ASSERT_TRUE(decision.changes.audit);
  const AuditEntry& entry = *decision.changes.audit;
  EXPECT_EQ(entry.actor, "caller");
  EXPECT_EQ(entry.action, "supersede another caller's request");
  EXPECT_EQ(entry.key, theirs.key_of());
  EXPECT_EQ(entry.from, State::kUnknown);
  EXPECT_EQ(entry.to, State::kUnknown);
  EXPECT_EQ(entry.evidence, "by two, request " + UuidText(Id(9)));
  EXPECT_EQ(entry.at, At(77));
  // Two callers used the id: whose is meant?
  view.open.push_back(view.open[0]);
  view.open[1].record.key.caller = "three";
  EXPECT_EQ(Decide(view, request).answer.verdict, V::kSupersedesInvalid);
  // The own one is nobody else's business.
  view.open.pop_back();
  view.open[0].record.key.caller = "two";
  view.other = view.open[0];
  decision = Decide(view, request);
  EXPECT_EQ(decision.answer.verdict, V::kGo);
  EXPECT_FALSE(decision.changes.audit);
}

TEST_P(RowTest, AnIdOfSeveralCallersNamesTheOwnFirstAndElseNobodys) {
  s_.Run({.caller = "one", .id = 1}, Maybe);
  s_.Run({.caller = "two", .id = 1, .supersedes = 1, .supersedes_others = true}, Maybe);
  // Only two's is open; one's was superseded by it.
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, Id(1));
  SettleRequest proof;
  proof.key = {"two", Id(1)};
  proof.attempt_id = s_.Get(proof.key).record->attempt_id;
  proof.state = State::kReleased;
  proof.action = "settle by late answer";
  proof.evidence = "test";
  proof.now = At(6);
  ASSERT_EQ(s_.Settle(proof).verdict, SettleVerdict::kSettled);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt) << "it leaves the chain across callers";
  s_.Run({.caller = "two", .id = 1, .supersedes = 1, .supersedes_others = true}, Back);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt);
  s_.Run({.caller = "three", .id = 4, .email = "4@example.com"}, Maybe);
  EXPECT_EQ(s_.Begin({.caller = "four", .id = 5, .email = "4@example.com", .supersedes = 4, .supersedes_others = true})
                .verdict,
            V::kGo);
}

// --- forgetting ---

// Everything ends at At(5).
TEST_P(RowTest, OnlyOldEndedRowsAreForgotten) {
  s_.Run({.id = 1, .email = "1@example.com", .person = "1"}, Done);
  s_.Run({.id = 2, .email = "1@example.com", .person = "2"}, Failed);
  s_.Run({.id = 3, .email = "3@example.com"}, Maybe);
  s_.Run({.id = 4, .email = "4@example.com"}, Back);
  s_.Begin({.id = 5, .email = "5@example.com"});
  EXPECT_EQ(s_.Purge(At(5)).purged, 0u);  // not old enough
  s_.Purge(At(5));
  const PurgeAnswer answer = s_.Purge(At(6));
  EXPECT_EQ(answer.seen, 5u);
  EXPECT_EQ(answer.purged, 2u);
  EXPECT_EQ(s_.Purge(At(6)).seen, 0u);
  EXPECT_FALSE(s_.Get(Mine(1)).record);
  EXPECT_FALSE(s_.Get(Mine(2)).record);
  for (const int id : {3, 4, 5}) EXPECT_TRUE(s_.Get(Mine(id)).record) << id;
  // The attempts are kept, the person is forgotten, and the id begins a new life.
  const BeginAnswer again = s_.Begin({.id = 1, .email = "1@example.com", .person = "1"});
  EXPECT_EQ(again.verdict, V::kGo);
  EXPECT_EQ(again.budget.used_min, 1);
  EXPECT_EQ(again.budget.used_max, 3);
}

// A released id is free again in any case, so its time is its own.
TEST_P(RowTest, ReleasedRowsAreForgottenByTheirOwnTime) {
  const auto run = [this] {
    s_.Run({.id = 1, .email = "1@example.com", .person = "1"}, Done);
    s_.Run({.id = 2, .email = "2@example.com"}, Back);
    s_.Run({.id = 3, .email = "1@example.com", .person = "3"}, Back);
    s_.Run({.id = 4, .email = "4@example.com"}, Maybe);
  };
  run();
  EXPECT_EQ(s_.Purge(absl::InfinitePast(), 100, At(5)).purged, 0u);  // not old enough
  s_.Purge(absl::InfinitePast(), 100, At(5));
  EXPECT_EQ(s_.Purge(absl::InfinitePast(), 100, At(6)).purged, 2u);
  EXPECT_EQ(s_.Purge(absl::InfinitePast(), 100, At(6)).seen, 0u);
  for (const int id : {2, 3}) EXPECT_FALSE(s_.Get(Mine(id)).record) << id;
  for (const int id : {1, 4}) EXPECT_TRUE(s_.Get(Mine(id)).record) << id;
  // The id begins a new life, with other content if need be, and the address has what it had.
  const BeginAnswer again = s_.Begin({.id = 3, .email = "1@example.com", .person = "other"});
  EXPECT_EQ(again.verdict, V::kGo);
  EXPECT_EQ(again.budget.used_min, 1);
  EXPECT_EQ(again.budget.used_max, 2);
  s_.Finish(Released(Mine(3)));
  EXPECT_EQ(s_.Begin({.id = 2, .email = "2@example.com"}).budget.used_max, 1);
  // Each by its own time.
  EXPECT_EQ(s_.Purge(At(100)).purged, 1u);
  EXPECT_FALSE(s_.Get(Mine(1)).record);
  EXPECT_TRUE(s_.Get(Mine(3)).record);
}

TEST_P(RowTest, AReleasedRowThatAnOpenOneRefersToIsKept) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Maybe);
  SettleRequest proof;
  proof.key = Mine(2);
  proof.attempt_id = s_.Get(Mine(2)).record->attempt_id;
  proof.state = State::kReleased;
  proof.action = "settle by late answer";
  proof.evidence = "test";
  proof.now = At(6);
  ASSERT_EQ(s_.Settle(proof).verdict, SettleVerdict::kSettled);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt);
  EXPECT_EQ(s_.Purge(absl::InfinitePast(), 100, At(100)).purged, 1u) << "nothing refers to it any more";
  EXPECT_EQ(s_.Begin({.id = 3}).verdict, V::kEmailUnresolved);
}

TEST_P(RowTest, ForgettingGoesOnWhereItWas) {
  for (int id = 1; id <= 10; ++id) {
    s_.Run({.id = id, .email = std::to_string(id) + "@example.com", .at = id}, id % 2 == 0 ? Done : Maybe);
  }
  size_t purged = 0;
  size_t turns = 0;
  for (;; ++turns) {
    const PurgeAnswer answer = s_.Purge(At(100), 3);
    if (answer.seen == 0) break;
    EXPECT_LE(answer.seen, 3u);
    purged += answer.purged;
  }
  EXPECT_EQ(turns, 4u);
  EXPECT_EQ(purged, 5u);
  EXPECT_EQ(s_.Purge(At(100), 100).seen, 5u);  // begins anew
}

TEST_P(RowTest, WhatAnOpenRowRefersToIsKept) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Failed);
  EXPECT_EQ(s_.Purge(At(100)).purged, 0u);
  s_.Purge(At(100));
  s_.Resolve(AsNotCreated(Mine(1), 200));
  // 1 is young again; it no longer needs 2, and does not refer to it afterwards.
  EXPECT_EQ(s_.Purge(At(100)).purged, 1u);
  EXPECT_FALSE(s_.Get(Mine(2)).record);
  EXPECT_EQ(s_.Get(Mine(1)).record->superseded_by, std::nullopt);
  s_.Purge(At(100));
  EXPECT_EQ(s_.Purge(At(201)).purged, 1u);
  EXPECT_EQ(s_.Begin({.id = 1}).budget.used_max, 3);
}

TEST_P(RowTest, ASupersededRowIsKeptWhileItsSuccessorIsOpen) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Maybe);
  s_.Run({.id = 3, .supersedes = 2}, Maybe);
  s_.Resolve(AsNotCreated(Mine(1)));
  EXPECT_EQ(s_.Purge(At(100)).purged, 0u);
  s_.Purge(At(100));
  s_.Resolve(AsNotCreated(Mine(2), 200));
  EXPECT_EQ(s_.Purge(At(100)).purged, 1u);
  EXPECT_FALSE(s_.Get(Mine(1)).record);
  // Only what named the forgotten row is cut.
  EXPECT_EQ(s_.Get(Mine(2)).record->supersedes, std::nullopt);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, Id(3));
}

TEST_P(RowTest, ForgettingTheSuccessorKeepsTheOtherLink) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Maybe);
  s_.Run({.id = 3, .supersedes = 2}, Failed);
  s_.Resolve(AsNotCreated(Mine(1), 200));
  s_.Resolve(AsNotCreated(Mine(2), 200));
  EXPECT_EQ(s_.Purge(At(100)).purged, 1u);
  EXPECT_FALSE(s_.Get(Mine(3)).record);
  EXPECT_EQ(s_.Get(Mine(2)).record->superseded_by, std::nullopt);
  EXPECT_EQ(s_.Get(Mine(2)).record->supersedes, Id(1));
}

TEST_P(RowTest, AResolvedPairIsForgottenTogether) {
  s_.Run({.id = 1}, Maybe);
  s_.Run({.id = 2, .supersedes = 1}, Maybe);
  s_.Resolve(AsNotCreated(Mine(1)));
  s_.Resolve(AsCreated(Mine(2)));
  EXPECT_EQ(s_.Purge(At(100)).purged, 2u);
  EXPECT_EQ(s_.Begin({.id = 1}).budget.used_min, 1);
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kEmailBusy);
}

// Key rotation: the same history, begun under the old key and asked about under the new one.
class RotationTest : public RowTest {
 protected:
  static Call Old(Call call) {
    call.key = kOldKey;
    return call;
  }
  static Call New(Call call) {
    call.previous = {kOldKey};
    return call;
  }
};
INSTANTIATE_TEST_SUITE_P(Decide, RotationTest, testing::ValuesIn(StoreKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(RotationTest, OwnRowIsFoundAndMoved) {
  s_.Run(Old({}), Done);
  EXPECT_EQ(s_.Begin(New({.ip = "8.8.4.4"})).verdict, V::kReused);
  EXPECT_EQ(s_.Begin(New({})).verdict, V::kRecorded);
  // From now on the old key is not needed for this row.
  EXPECT_EQ(s_.Begin({}).verdict, V::kRecorded);
  EXPECT_EQ(s_.Begin({.ip = "8.8.4.4"}).verdict, V::kReused);
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kPersonExists);
  EXPECT_EQ(s_.Begin({.id = 2}).budget.used_min, 1);
}

TEST_P(RotationTest, LookingMovesNothing) {
  s_.Run(Old({}), Done);
  Call look = New({.may_start = false});
  EXPECT_EQ(s_.Begin(look).verdict, V::kRecorded);
  EXPECT_EQ(s_.Begin(look).budget.used_min, 1);
  EXPECT_EQ(s_.Begin(Old({})).verdict, V::kRecorded);  // still there
  EXPECT_EQ(s_.Begin(Old({.id = 2})).verdict, V::kPersonExists);
}

TEST_P(RotationTest, PersonAndBudgetAreFound) {
  s_.Run(Old({.id = 2}), Done);
  s_.Run(Old({.caller = "two", .id = 3, .person = "bob"}), Failed);
  BeginAnswer answer = s_.Begin(New({.may_start = false}));
  EXPECT_EQ(answer.verdict, V::kPersonExists);
  EXPECT_EQ(answer.existing_intent_id, "intent-1");
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 2);
  answer = s_.Begin(New({}));
  EXPECT_EQ(answer.verdict, V::kPersonExists);
  EXPECT_EQ(answer.budget.used_max, 2);
  answer = s_.Begin(New({.allow_repeat = true}));
  EXPECT_EQ(answer.verdict, V::kGo);
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 3);
  // The row of id 2 was not shown to us, but its address was: its budget is whole.
  EXPECT_EQ(s_.Get(Mine(2)).budget.used_max, 3);
}

TEST_P(RotationTest, BusyUnresolvedAndSupersedesAreFound) {
  s_.Begin(Old({.id = 2}));
  EXPECT_EQ(s_.Begin(New({.may_start = false})).verdict, V::kEmailBusy);
  EXPECT_EQ(s_.Begin(New({})).verdict, V::kEmailBusy);
  s_.Finish(Unknown(Mine(2)));
  s_.Run(Old({.id = 5, .email = "b@example.com"}), Maybe);
  EXPECT_EQ(s_.Begin(New({})).unresolved, Id(2));
  EXPECT_EQ(s_.Begin(New({.email = "b@example.com", .supersedes = 5, .may_start = false})).verdict, V::kWouldGo);
  EXPECT_EQ(s_.Begin(New({.supersedes = 2})).verdict, V::kGo);
  EXPECT_EQ(s_.Finish(Released(Mine(1))).budget.used_max, 1);
  EXPECT_EQ(s_.Begin(New({.id = 2})).verdict, V::kRecorded);
}

TEST_P(RotationTest, AReleasedRowRestartsUnderTheNewKey) {
  s_.Run(Old({}), Back);
  EXPECT_EQ(s_.Begin(New({})).verdict, V::kGo);
  s_.Finish(Succeeded(Mine(1)));
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kPersonExists);
}

TEST_P(RotationTest, AddressesKnownUnderBothKeysAreMerged) {
  s_.Run(Old({.id = 2}), Done);
  s_.Run({.id = 3, .person = "bob"}, Failed);  // somebody forgot to say the previous key
  const BeginAnswer answer = s_.Begin(New({.allow_repeat = true}));
  EXPECT_EQ(answer.verdict, V::kGo);
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 3);
  EXPECT_EQ(s_.Get(Mine(2)).budget.used_max, 3);
  EXPECT_EQ(s_.Get(Mine(3)).budget.used_max, 3);
}

TEST_P(RotationTest, SupersedingOneOfTwoUnresolvedLeavesTheOther) {
  s_.Run(Old({.id = 2}), Maybe);
  s_.Run({.id = 3}, Maybe);  // as above
  const BeginAnswer answer = s_.Begin(New({.supersedes = 3}));
  EXPECT_EQ(answer.verdict, V::kEmailUnresolved);
  EXPECT_EQ(answer.unresolved, Id(2));
  EXPECT_EQ(s_.Get(Mine(3)).record->superseded_by, std::nullopt);
}

// Under which of the two keys a row is found says nothing about whose it is.
TEST_P(RotationTest, LookingUnderBothKeysPrefersTheCallersOwnPerson) {
  const auto as = [](const std::string& intent) { return [=](const Key& key) { return Succeeded(key, intent); }; };
  const auto look = [this](const std::string& caller, const std::string& email) {
    return s_.Begin(New({.caller = caller, .id = 9, .email = email, .may_start = false}));
  };
  const auto call = [this](const std::string& caller, const std::string& email) {
    return s_.Begin(New({.caller = caller, .id = 9, .email = email}));
  };
  s_.Run(Old({.id = 2}), as("mine"));
  s_.Run({.caller = "two", .id = 3}, as("theirs"));
  EXPECT_EQ(look("one", "a@example.com").existing_intent_id, "mine");
  EXPECT_EQ(look("two", "a@example.com").existing_intent_id, "theirs");
  EXPECT_EQ(look("three", "a@example.com").verdict, V::kWouldGo) << "another's person is not told to who only looks";
  EXPECT_EQ(call("three", "a@example.com").verdict, V::kPersonExists);
  EXPECT_EQ(call("three", "a@example.com").existing_intent_id, "");

  s_.Run(Old({.id = 4, .email = "b@example.com"}), as("older"));
  s_.Run({.id = 5, .email = "b@example.com"}, as("newer"));
  EXPECT_EQ(look("one", "b@example.com").existing_intent_id, "newer");

  s_.Run(Old({.caller = "two", .id = 6, .email = "c@example.com"}), as("theirs"));
  EXPECT_EQ(call("one", "c@example.com").verdict, V::kPersonExists);
  EXPECT_EQ(call("one", "c@example.com").existing_intent_id, "");
}

// The address moved when somebody else showed it; the row had not succeeded then, so its person did not.
TEST_P(RotationTest, APersonLeftUnderTheOldKeyIsFound) {
  s_.Run(Old({.id = 2}), Maybe);
  EXPECT_EQ(s_.Begin(New({.person = "bob"})).verdict, V::kEmailUnresolved);
  s_.Resolve(AsCreated(Mine(2)));
  EXPECT_EQ(s_.Begin(New({.id = 3, .may_start = false})).existing_intent_id, "intent-9");
  EXPECT_EQ(s_.Begin(New({.id = 3})).verdict, V::kPersonExists);
}

TEST_P(RotationTest, ARowTakesItsPersonAlong) {
  s_.Run(Old({}), Done);
  EXPECT_EQ(s_.Begin(New({})).verdict, V::kRecorded);
  EXPECT_EQ(s_.Begin({.id = 2}).verdict, V::kPersonExists);
  // Also before there is an outcome.
  s_.Begin(Old({.id = 3, .email = "b@example.com"}));
  EXPECT_EQ(s_.Begin(New({.id = 3, .email = "b@example.com"})).verdict, V::kInProgress);
  s_.Finish(Succeeded(Mine(3)));
  EXPECT_EQ(s_.Begin({.id = 4, .email = "b@example.com"}).verdict, V::kPersonExists);
}

// Three keys, and rows under each of them.
class ManyKeysTest : public RotationTest {
 protected:
  static Call Oldest(Call call) {
    call.key = kOldestKey;
    return call;
  }
  static Call New(Call call) {
    call.previous = {kOldKey, kOldestKey};
    return call;
  }
};
INSTANTIATE_TEST_SUITE_P(Decide, ManyKeysTest, testing::ValuesIn(StoreKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(ManyKeysTest, RowsUnderEachKeyAreFoundAndMoved) {
  s_.Run(Oldest({.id = 1}), Done);
  s_.Run(Old({.id = 2, .email = "b@example.com"}), Done);
  s_.Run({.id = 3, .email = "c@example.com"}, Done);
  for (const auto& [id, email] : {std::pair(1, "a@example.com"), {2, "b@example.com"}, {3, "c@example.com"}}) {
    EXPECT_EQ(s_.Begin(New({.id = id, .email = email, .may_start = false})).verdict, V::kRecorded);
    EXPECT_EQ(s_.Begin(New({.id = id, .email = email, .ip = "8.8.4.4"})).verdict, V::kReused);
    EXPECT_EQ(s_.Begin(New({.id = 9, .email = email, .may_start = false})).verdict, V::kPersonExists);
    EXPECT_EQ(s_.Begin(New({.id = id, .email = email})).verdict, V::kRecorded);
    EXPECT_EQ(s_.Begin({.id = id, .email = email}).verdict, V::kRecorded);  // no older key is needed any more
    EXPECT_EQ(s_.Begin({.id = 9, .email = email}).verdict, V::kPersonExists);
  }
}

TEST_P(ManyKeysTest, AttemptsUnderAllKeysAreOneBudget) {
  s_.Run(Oldest({.id = 2, .person = "bob"}), Done);
  s_.Run(Old({.id = 3, .person = "eve"}), Failed);  // somebody forgot to say the previous keys, twice
  s_.Run({.id = 4, .person = "joe"}, Done);
  for (const bool may_start : {false, true}) {
    const BeginAnswer answer = s_.Begin(New({.person = "bob", .may_start = may_start}));
    EXPECT_EQ(answer.verdict, V::kPersonExists);
    EXPECT_EQ(answer.existing_intent_id, "intent-1");
    EXPECT_EQ(answer.budget.used_min, 2);
    EXPECT_EQ(answer.budget.used_max, 3);
  }
  EXPECT_EQ(s_.Get(Mine(2)).budget.used_max, 3);
}

TEST_P(ManyKeysTest, OpenRowsUnderAllKeysAreFound) {
  s_.Begin(Oldest({.id = 2}));
  EXPECT_EQ(s_.Begin(New({.may_start = false})).verdict, V::kEmailBusy);
  s_.Finish(Unknown(Mine(2)));
  s_.Run(Old({.id = 3}), Maybe);  // as above
  EXPECT_EQ(s_.Begin(New({.supersedes = 2, .may_start = false})).unresolved, Id(3));
  EXPECT_EQ(s_.Begin(New({.supersedes = 3})).unresolved, Id(2));
}

// The address moved twice, each time because somebody else showed it; the row had not succeeded then.
TEST_P(ManyKeysTest, APersonLeftUnderTheOldestKeyIsFound) {
  s_.Run(Oldest({.id = 2}), Maybe);
  Call middle = Old({.person = "bob"});
  middle.previous = {kOldestKey};
  EXPECT_EQ(s_.Begin(middle).verdict, V::kEmailUnresolved);
  s_.Resolve(AsCreated(Mine(2)));
  EXPECT_EQ(s_.Begin(New({.id = 3, .may_start = false})).existing_intent_id, "intent-9");
  EXPECT_EQ(s_.Begin(New({.id = 3})).verdict, V::kPersonExists);
  EXPECT_EQ(s_.Begin({.id = 3}).verdict, V::kPersonExists);
}

// A rotation that is taken back: the address is under the newer key, its person under the one that is current again.
TEST_P(ManyKeysTest, AKeyThatComesBackFindsWhatMovedAway) {
  s_.Run(Old({.id = 2}), Maybe);
  Call forth{.person = "bob"};
  forth.previous = {kOldKey};
  EXPECT_EQ(s_.Begin(forth).verdict, V::kEmailUnresolved);
  s_.Resolve(AsCreated(Mine(2)));
  Call back = Old({.id = 3, .may_start = false});
  back.previous = {kKey};
  EXPECT_EQ(s_.Begin(back).existing_intent_id, "intent-9");
}

// The same key and content, and a person that was hashed in another form.
TEST_P(ManyKeysTest, APersonIsFoundByAnEarlierForm) {
  const auto begin = [this](const Call& call) {
    BeginRequest request = call.request();
    request.older.push_back(request.current);
    request.older.back().person = Prints(kKey, call.email, "Ann, as typed elsewhere", "").person;
    EXPECT_TRUE(store_->Start().ok());
    const BeginAnswer answer = Execute(*store_, request).value();
    EXPECT_TRUE(store_->Commit().ok());
    return answer;
  };
  s_.Run({.person = "Ann, as typed elsewhere"}, Done);
  EXPECT_EQ(s_.Begin({.id = 2, .may_start = false}).verdict, V::kWouldGo);
  EXPECT_EQ(begin({.id = 2, .may_start = false}).existing_intent_id, "intent-1");
  EXPECT_EQ(begin({.id = 2}).existing_intent_id, "intent-1");
  EXPECT_EQ(s_.Begin({.id = 2}).existing_intent_id, "intent-1");  // it has moved
  EXPECT_EQ(begin({.id = 2, .allow_repeat = true}).budget.used_max, 2);
}

TEST_P(RotationTest, TheCurrentKeyGivenTwiceIsCountedOnce) {
  s_.Run({.id = 2}, Done);
  const BeginAnswer answer = s_.Begin({.allow_repeat = true, .previous = {kKey}});
  EXPECT_EQ(answer.verdict, V::kGo);
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 2);
}

TEST_P(RotationTest, ForgottenAttemptsMove) {
  s_.Run(Old({.id = 2}), Done);
  s_.Purge(At(100));
  s_.Run({.id = 3, .person = "bob"}, Failed);  // known under both keys, as above
  s_.Purge(At(100));
  s_.Purge(At(100));
  const BeginAnswer answer = s_.Begin(New({}));
  EXPECT_EQ(answer.verdict, V::kGo);
  EXPECT_EQ(answer.budget.used_min, 1);
  EXPECT_EQ(answer.budget.used_max, 3);
}

TEST_P(RotationTest, ARowUnderAKeyThatWasNotGivenIsNotJudged) {
  s_.Run(Old({}), Back);
  ASSERT_TRUE(store_->Start().ok());
  const auto answer = Execute(*store_, Call{}.request());
  EXPECT_FALSE(answer.ok());
  EXPECT_FALSE(IsRefusal(answer.status()));
  store_->Rollback();
}

// --- without a store: facts in, answer and changes out ---

using Part = RowChange::Part;

TEST(PureDecideTest, WhatNothingIsKnownOfPutsOneRowAndCountsIt) {
  const BeginRequest request = Call{}.request();
  const Decision<BeginAnswer> decision = Decide(View(), request);
  EXPECT_EQ(decision.answer.verdict, V::kGo);
  EXPECT_EQ(decision.answer.budget.used_max, 1);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].part, Part::kWhole);
  EXPECT_EQ(decision.changes.rows[0].row.record.state, State::kSending);
  ASSERT_EQ(decision.changes.counts.size(), 1u);
  EXPECT_EQ(decision.changes.counts[0].email, request.current.email);
  EXPECT_EQ(decision.changes.counts[0].delta, (Counters{0, 1}));
  EXPECT_TRUE(decision.changes.emails.empty() && decision.changes.persons.empty() && decision.changes.purged.empty());
}

View Known(const BeginRequest& request, State state) {
  View view;
  view.own.emplace();
  view.own->record.key = request.key;
  view.own->record.state = state;
  const Fingerprints& prints = request.older.empty() ? request.current : request.older.front();
  view.own->key_id = prints.key_id;
  view.own->content = prints.content;
  view.own->person = prints.person;
  view.own->email = prints.email;
  view.own->handle = 5;
  return view;
}

TEST(PureDecideTest, WhatIsRecordedChangesNothing) {
  const BeginRequest request = Call{}.request();
  const Decision<BeginAnswer> decision = Decide(Known(request, State::kSucceeded), request);
  EXPECT_EQ(decision.answer.verdict, V::kRecorded);
  EXPECT_TRUE(decision.changes.empty());
  EXPECT_FALSE(decision.asks_admission);
}

TEST(PureDecideTest, KeysMoveWithACallThatIsNotSent) {
  BeginRequest request = Call{.previous = {kOldKey}}.request();
  const Decision<BeginAnswer> decision = Decide(Known(request, State::kSucceeded), request);
  EXPECT_EQ(decision.answer.verdict, V::kRecorded);
  EXPECT_EQ(decision.changes.emails.size(), 1u);
  EXPECT_EQ(decision.changes.persons.size(), 1u);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].part, Part::kWhole);
  EXPECT_EQ(decision.changes.rows[0].row.key_id, kKey);
  EXPECT_EQ(decision.changes.rows[0].row.handle, 5);
  request.may_start = false;
  EXPECT_TRUE(Decide(Known(request, State::kSucceeded), request).changes.empty());
}

TEST(PureDecideTest, AFormThatWasHashedBeforeMovesToo) {
  BeginRequest request = Call{}.request();
  request.older = {Prints(kKey, "A@example.com", "Ann", "8.8.8.8")};
  const Decision<BeginAnswer> decision = Decide(Known(request, State::kSucceeded), request);
  EXPECT_EQ(decision.answer.verdict, V::kRecorded);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].row.content, request.current.content);
  EXPECT_EQ(decision.changes.rows[0].row.person, request.current.person);
  EXPECT_EQ(decision.changes.rows[0].row.email, request.current.email);
}

TEST(PureDecideTest, WhatStandsUnderTheCurrentPrintsStays) {
  BeginRequest request = Call{}.request();
  request.older = {request.current};
  EXPECT_TRUE(Decide(Known(request, State::kSucceeded), request).changes.empty());
}

TEST(PureDecideTest, ARowUnderAKeyThatWasNotGivenIsNotJudged) {
  const BeginRequest request = Call{.previous = {kOldKey}}.request();
  View view = Known(request, State::kSucceeded);
  view.own->key_id = kOldestKey;
  const Decision<BeginAnswer> decision = Decide(view, request);
  EXPECT_EQ(decision.refusal, Refusal::kUnknowable);
  EXPECT_TRUE(decision.changes.empty());
}

TEST(PureDecideTest, OtherContentIsToldWhatTheIdIsBoundTo) {
  const BeginRequest request = Call{}.request();
  View view = Known(request, State::kSucceeded);
  view.own->content = Hash(kKey, "content", "other");
  const Decision<BeginAnswer> decision = Decide(view, request);
  EXPECT_EQ(decision.answer.verdict, V::kReused);
  EXPECT_EQ(decision.answer.content, view.own->content);
}

TEST(PureDecideTest, AReleasedRowMovesWithItsNewStart) {
  const BeginRequest request = Call{.previous = {kOldKey}}.request();
  const Decision<BeginAnswer> decision = Decide(Known(request, State::kReleased), request);
  EXPECT_EQ(decision.answer.verdict, V::kGo);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].row.key_id, kKey);
  EXPECT_EQ(decision.changes.rows[0].row.record.state, State::kSending);
}

TEST(PureDecideTest, APersonDoesNotStandInTheWayOfARepeatThatIsAllowed) {
  View view;
  view.person = Known(Call{.id = 2}.request(), State::kSucceeded).own;
  EXPECT_EQ(Decide(view, Call{}.request()).answer.verdict, V::kPersonExists);
  EXPECT_EQ(Decide(view, Call{.allow_repeat = true}.request()).answer.verdict, V::kGo);
}

struct Closed final : Admission {
  bool MayStart() override { return false; }
  void OnWaiting() override {}
};

// Decide calls nothing: it says that the admission must be asked, and what holds if that refuses.
TEST(PureDecideTest, AdmissionIsLeftToTheCaller) {
  Closed closed;
  const BeginRequest request = Call{.admission = &closed}.request();
  EXPECT_TRUE(Decide(View(), request).asks_admission);
  EXPECT_EQ(Decide(View(), request).answer.verdict, V::kGo);
  const Decision<BeginAnswer> refused = Decide(View(), request, kRules, false);
  EXPECT_EQ(refused.answer.verdict, V::kWouldGo);
  EXPECT_TRUE(refused.changes.empty());
}

TEST(PureDecideTest, AnEndChangesItsRowAndItsCounter) {
  View view = Known(Call{}.request(), State::kSending);
  view.counters = {0, 2};
  const Decision<FinishAnswer> decision = Decide(std::move(view), Succeeded(Mine(1)));
  EXPECT_EQ(decision.answer.budget.used_min, 1);
  EXPECT_EQ(decision.answer.budget.used_max, 2);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].part, Part::kProgress);
  ASSERT_EQ(decision.changes.counts.size(), 1u);
  EXPECT_EQ(decision.changes.counts[0].delta, (Counters{1, -1}));
}

// The mark of superseding goes only with a release, and only if it names the row that is released.
TEST(PureDecideTest, ARowIsFreedByTheReleaseOfTheOneThatSupersededIt) {
  const auto changed = [](const FinishRequest& end, int by) {
    View view = Known(Call{.supersedes = 2}.request(), State::kSending);
    view.own->record.supersedes = Id(2);
    view.other = Known(Call{.id = 2}.request(), State::kUnknown).own;
    view.other->record.superseded_by = Id(by);
    return Decide(std::move(view), end).changes.rows.size();
  };
  EXPECT_EQ(changed(Released(Mine(1)), 1), 2u);
  EXPECT_EQ(changed(Released(Mine(1)), 3), 1u);
  EXPECT_EQ(changed(Failed(Mine(1)), 1), 1u);
}

TEST(PureDecideTest, ForgettingWritesOnlyWhatLostALink) {
  const auto row = [](int id, int64_t updated) {
    Row one = *Known(Call{.id = id}.request(), State::kFailed).own;
    one.record.updated = At(updated);
    return one;
  };
  OldRows old;
  old.rows = {row(1, 0), row(2, 0), row(3, 0), row(4, 0)};
  old.rows[0].record.superseded_by = Id(2);
  old.rows[1].record.supersedes = Id(1);
  old.rows[2].record.superseded_by = Id(5);
  old.rows[3].record.superseded_by = Id(9);  // which was forgotten long ago
  old.linked = {row(5, 50)};                 // too young to go
  old.linked[0].record.supersedes = Id(3);
  const Decision<PurgeAnswer> decision = Decide(old, PurgeRequest{At(10), 10});
  EXPECT_EQ(decision.answer.seen, 4u);
  EXPECT_EQ(decision.answer.purged, 4u);
  ASSERT_EQ(decision.changes.rows.size(), 1u);
  EXPECT_EQ(decision.changes.rows[0].row.record.key, Mine(5));
  EXPECT_FALSE(decision.changes.rows[0].row.record.supersedes);
}

TEST(PureDecideTest, ARefusedEndSaysWhy) {
  const Decision<FinishAnswer> none = Decide(View(), Succeeded(Mine(1)));
  EXPECT_EQ(none.refusal, Refusal::kNotFound);
  const Decision<FinishAnswer> ended = Decide(Known(Call{}.request(), State::kFailed), Succeeded(Mine(1)));
  EXPECT_EQ(ended.refusal, Refusal::kState);
  EXPECT_TRUE(none.changes.empty() && ended.changes.empty());
}

}  // namespace
}  // namespace userintent::ledger
