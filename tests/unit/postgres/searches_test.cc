// What a ledger is asked that no decision follows, and which joins are over.
#include "server/postgres/searches.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <string>
#include <vector>

#include "server/postgres/foreign_joins.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using ledger::State;
using testing::ElementsAre;
using testing::IsEmpty;

class SearchesTest : public RigTest {
 protected:
  // "3 -": by_intent is the request 3, by_attempt none.
  std::string Traced(const ledger::TraceRequest& request) {
    const auto answer = Trace(*c_, request);
    EXPECT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(answer->available);
    const auto text = [](const std::optional<ledger::Record>& record) {
      return record ? std::to_string(record->key.request_id[15]) : std::string("-");
    };
    return text(answer->by_intent) + " " + text(answer->by_attempt) + (answer->more ? " more" : "");
  }
};

TEST_F(SearchesTest, WhatAWebhookSpeaksOf) {
  PutRow({.id = 1, .state = State::kSucceeded, .intent = "intent-1", .attempt = 1001, .created = 10});
  PutRow({.id = 2, .state = State::kSucceeded, .intent = "intent-1", .attempt = 1002, .created = 20});
  PutRow({.id = 3, .state = State::kUnknown, .attempt = 1003});
  PutRow({.id = 4, .caller = "two", .state = State::kSending, .attempt = 1004});
  PutRow({.id = 5, .state = State::kFailed, .attempt = 1005});
  PutRow({.id = 6, .state = State::kReleased, .attempt = 1006});
  EXPECT_EQ(Traced({"intent-1"}), "2 -") << "the newest";
  EXPECT_EQ(Traced({"intent-2"}), "- -");
  EXPECT_EQ(Traced({"", Id(1003)}), "- 3");
  EXPECT_EQ(Traced({"intent-1", Id(1004)}), "2 4");
  EXPECT_EQ(Traced({"", Id(1005)}), "- 5");
  EXPECT_EQ(Traced({"", Id(1006)}), "- 6");
  EXPECT_EQ(Traced({"intent-1", Id(1002)}), "2 2");
  EXPECT_EQ(Traced({"intent-1", Id(1001)}), "2 1") << "found among those that succeeded";
  EXPECT_EQ(Traced({"intent-1", Id(1001), absl::InfinitePast(), 0, true}), "2 - more");
  EXPECT_EQ(Traced({"", Id(1009)}), "- -");
}

TEST_F(SearchesTest, ATraceGoesBackInSlices) {
  PutRow({.id = 1, .intent = "old", .attempt = 1001, .created = 1000});
  Do("INSERT INTO request (key_id, email, owner, created_at, updated_at, caller, reason, verification_type, state, "
     "sent, http_status, attempts, confirmed, request_id, attempt_id, content, person, user_intent_id, astra_status, "
     "astra_request_id) SELECT key_id, email, owner, (2000 + n)::bigint * 1000000, 0, caller, 0, 0, 2, 2, 201, 1, "
     "true, "
     "gen_random_uuid(), gen_random_uuid(), content, person, 'new', '', '' FROM request, generate_series(1, 2500) n");
  // Slice by slice until it is found or there are no more: how many there were, and whether it was.
  const auto search = [&](absl::Time since) {
    ledger::TraceRequest request{"", Id(1001), since};
    for (int slices = 1;; ++slices) {
      const auto answer = Trace(*c_, request);
      EXPECT_TRUE(answer.ok()) << answer.status();
      if (!answer->more) return std::pair(slices, answer->by_attempt.has_value());
      request.cursor = answer->cursor;
    }
  };
  EXPECT_EQ(search(absl::InfinitePast()), std::pair(3, true));
  EXPECT_EQ(search(absl::FromUnixSeconds(1500)), std::pair(3, false)) << "older ones are not searched";
  EXPECT_EQ(search(absl::FromUnixSeconds(4200)), std::pair(1, false));
}

TEST_F(SearchesTest, WhatSucceededSinceThen) {
  for (int n = 1; n <= 9; ++n) {
    PutRow({.id = n, .state = n % 3 == 0 ? State::kUnknown : State::kSucceeded, .intent = "i", .created = n * 1000});
  }
  ledger::SucceededRequest request{absl::FromUnixSeconds(3500), 0, 2};
  std::vector<int> found;
  for (int slices = 1;; ++slices) {
    const auto answer = Succeeded(*c_, request);
    ASSERT_TRUE(answer.ok()) << answer.status();
    for (const ledger::Record& record : answer->records) found.push_back(record.key.request_id[15]);
    request.cursor = answer->cursor;
    if (!answer->more) break;
    ASSERT_LT(slices, 10);
  }
  EXPECT_THAT(found, ElementsAre(4, 5, 7, 8));
  EXPECT_THAT(Succeeded(*c_, {absl::FromUnixSeconds(99'000), 0, 2})->records, IsEmpty());
  EXPECT_EQ(Succeeded(*c_, {absl::InfinitePast(), 0, 500})->records.size(), 6U);
}

TEST_F(SearchesTest, AnEmptyLedger) {
  EXPECT_EQ(Traced({"intent-1", Id(1)}), "- -");
  EXPECT_THAT(Succeeded(*c_, {})->records, IsEmpty());
}

// Which of these are over; each row is (state, its number is its id).
TEST_F(SearchesTest, JoinsAreOverWhenTheirRowsAreNotSending) {
  PutRow({.id = 1, .state = State::kSending});
  PutRow({.id = 1, .caller = "two", .state = State::kSucceeded});
  PutRow({.id = 2, .state = State::kUnknown});
  PutRow({.id = 3, .state = State::kReleased});
  std::vector<ledger::Key> waits;
  std::vector<std::string> ended;
  ForeignJoins joins({[&] { return waits; },
                      [&](std::vector<ledger::Key> keys) {
                        for (const ledger::Key& key : keys) {
                          ended.push_back(absl::StrCat(key.caller, " ", key.request_id[15]));
                        }
                        std::sort(ended.begin(), ended.end());
                      }});
  const auto turn = [&](BootNanos now) {
    ended.clear();
    EXPECT_EQ(*joins.Turn(*c_, now), now + ForeignJoins::kLookEvery);
    return ended;
  };
  EXPECT_THAT(turn(0), IsEmpty());
  waits = {{"one", Id(1)}, {"two", Id(1)}, {"one", Id(2)}, {"one", Id(3)}, {"two", Id(7)}, {"nobody", Id(1)}};
  EXPECT_THAT(turn(1'000'000'000), IsEmpty()) << "not at once";
  EXPECT_THAT(turn(1'020'000'000), ElementsAre("nobody 1", "one 2", "one 3", "two 1", "two 7"));
  waits = {{"one", Id(1)}};
  EXPECT_THAT(turn(2'000'000'000), IsEmpty());
  Do("UPDATE request SET state = 2 WHERE state = 1");
  EXPECT_THAT(turn(3'000'000'000), ElementsAre("one 1"));
}

}  // namespace
}  // namespace userintent::postgres
