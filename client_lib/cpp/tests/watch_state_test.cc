// What a watch makes of messages and lost streams, with a clock and a jitter of the test's.
#include "src/watch_state.h"

#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "tests/watch_messages.h"

namespace userintent {
namespace {

using ::testing::Optional;

absl::Duration now;
double jitter;
absl::Duration TestNow() { return now; }
double TestJitter() { return jitter; }

Error Of(absl::StatusCode code, std::string reason = "", std::optional<absl::Duration> retry_after = {}) {
  Error error;
  error.code = code;
  error.reason = std::move(reason);
  error.retry_after = retry_after;
  return error;
}

class WatchStateTest : public testing::Test {
 protected:
  WatchStateTest() {
    now = absl::Seconds(1000);
    jitter = 1;
  }
  static WatchState New(const WatchOptions& options = {}) { return WatchState(options, &TestNow, &TestJitter); }
};

TEST_F(WatchStateTest, AsksForWhatTheOptionsSay) {
  WatchOptions options;
  options.request_ids = {"A", "B"};
  options.resume_token = "from";
  const WatchState state = New(options);
  EXPECT_THAT(state.request().request_ids(), testing::ElementsAre("A", "B"));
  EXPECT_EQ(state.request().resume_token(), "from");
}

TEST_F(WatchStateTest, EveryMessageMovesTheToken) {
  WatchState state = New();
  EXPECT_EQ(state.Heard(Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"))->resume_token, "1");
  EXPECT_EQ(state.Heard(Heartbeat("2")), std::nullopt);
  EXPECT_EQ(state.resume_token(), "2");
  EXPECT_EQ(state.Heard(v1::WatchUserIntentsResponse()), std::nullopt);  // an event that is not known, without a token
  EXPECT_EQ(state.resume_token(), "2");
  EXPECT_EQ(state.Heard(Reset(""))->kind, WatchEvent::Kind::kReset);
  EXPECT_EQ(state.resume_token(), "");  // the old one would only lead to another reset
}

TEST_F(WatchStateTest, SyncedOnceAndOnceMoreAfterReset) {
  WatchState state = New();
  EXPECT_EQ(state.Heard(Synced("1"))->kind, WatchEvent::Kind::kSynced);
  EXPECT_EQ(state.Heard(Synced("2")), std::nullopt);
  EXPECT_EQ(state.resume_token(), "2");
  EXPECT_TRUE(state.Heard(Reset("3")).has_value());
  EXPECT_TRUE(state.Heard(Synced("4")).has_value());
  EXPECT_FALSE(state.Heard(Synced("5")).has_value());
}

TEST_F(WatchStateTest, PausesGrowAndAreAnythingUpToTheLimit) {
  WatchState state = New();
  for (const int ms : {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000, 10000, 10000}) {
    EXPECT_THAT(state.Lost(Of(absl::StatusCode::kUnavailable)), Optional(absl::Milliseconds(ms)));
  }
  jitter = 0;
  EXPECT_THAT(state.Lost(Of(absl::StatusCode::kUnavailable)), Optional(absl::ZeroDuration()));
}

TEST_F(WatchStateTest, NewsMakeThePausesShortAgain) {
  WatchState state = New();
  const auto pause = [&state] { return *state.Lost(Of(absl::StatusCode::kOk)); };
  EXPECT_EQ(pause(), absl::Milliseconds(100));
  EXPECT_EQ(pause(), absl::Milliseconds(200));
  state.Heard(Synced(""));
  EXPECT_EQ(pause(), absl::Milliseconds(100));
  state.Heard(Synced(""));  // no news: streams that all break after it must not be begun ten times a second
  EXPECT_EQ(pause(), absl::Milliseconds(200));
  state.Heard(Heartbeat(""));
  EXPECT_EQ(pause(), absl::Milliseconds(100));
}

TEST_F(WatchStateTest, NotBeforeTheDelayThatTheGatewayAsksFor) {
  WatchState state = New();
  const Error error = Of(absl::StatusCode::kUnavailable, "DRAINING", absl::Seconds(20));
  EXPECT_THAT(state.Lost(error), Optional(absl::Seconds(25)));
  jitter = 0;
  EXPECT_THAT(state.Lost(error), Optional(absl::Seconds(20)));
}

TEST_F(WatchStateTest, WhatEndsAWatch) {
  for (const auto code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kUnauthenticated, absl::StatusCode::kPermissionDenied,
        absl::StatusCode::kUnimplemented, absl::StatusCode::kNotFound, absl::StatusCode::kFailedPrecondition}) {
    WatchState state = New();
    EXPECT_EQ(state.Lost(Of(code, "", absl::ZeroDuration())), std::nullopt) << code;
    EXPECT_EQ(state.error().code, code);
    EXPECT_TRUE(state.error().read);
  }
  // The gateway's own word that a repeat is of no use.
  EXPECT_EQ(New().Lost(Of(absl::StatusCode::kInternal, "INTERNAL")), std::nullopt);
  EXPECT_EQ(New().Lost(Of(absl::StatusCode::kUnknown, "NEWER")), std::nullopt);
}

TEST_F(WatchStateTest, WhatDoesNot) {
  for (const auto code :
       {absl::StatusCode::kOk, absl::StatusCode::kUnavailable, absl::StatusCode::kResourceExhausted,
        absl::StatusCode::kInternal, absl::StatusCode::kUnknown, absl::StatusCode::kCancelled,
        absl::StatusCode::kAborted, absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kDataLoss}) {
    EXPECT_TRUE(New().Lost(Of(code)).has_value()) << code;
  }
  EXPECT_TRUE(New().Lost(Of(absl::StatusCode::kUnavailable, "DRAINING")).has_value());
  EXPECT_TRUE(New().Lost(Of(absl::StatusCode::kInternal, "NEWER", absl::ZeroDuration())).has_value());
}

TEST_F(WatchStateTest, TheDeadlineEndsPausesAndTheWatch) {
  WatchOptions options;
  options.timeout = absl::Seconds(3);
  options.request_ids = {"R"};
  WatchState state = New(options);
  EXPECT_THAT(state.BeginStream(), Optional(absl::Seconds(3)));
  now += absl::Seconds(2);
  Error error = Of(absl::StatusCode::kUnavailable, "DRAINING", absl::Seconds(20));
  error.message = "shutting down";
  EXPECT_THAT(state.Lost(error), Optional(absl::Seconds(1)));
  now += absl::Seconds(1);
  EXPECT_EQ(state.BeginStream(), std::nullopt);
  EXPECT_EQ(state.error().not_repeated, not_repeated::kDeadline);
  std::ostringstream text;
  text << state.error();
  EXPECT_EQ(text.str(),
            "DEADLINE_EXCEEDED: the deadline was over; no stream came about: UNAVAILABLE, shutting down "
            "(RETRY_SAME_ID, request_id R, tries 1)");
}

TEST_F(WatchStateTest, ADeadlineOfAGoodStreamSaysNoMore) {
  WatchOptions options;
  options.timeout = absl::Seconds(3);
  WatchState state = New(options);
  state.BeginStream();
  state.Lost(Of(absl::StatusCode::kUnavailable));
  state.BeginStream();
  state.Heard(Heartbeat(""));
  now += absl::Seconds(3);
  EXPECT_THAT(state.Lost(Of(absl::StatusCode::kDeadlineExceeded)), Optional(absl::ZeroDuration()));
  EXPECT_EQ(state.BeginStream(), std::nullopt);
  EXPECT_EQ(state.error().message, "the deadline was over");
}

TEST_F(WatchStateTest, WithoutATimeoutThereIsNoEnd) {
  EXPECT_THAT(New().BeginStream(), Optional(absl::InfiniteDuration()));
}

TEST_F(WatchStateTest, WhatCannotBeSentIsNot) {
  for (const std::string& bad : {std::string(70000, 'x'), std::string("\xff")}) {
    WatchOptions options;
    options.request_ids = {bad};
    WatchState state = New(options);
    EXPECT_EQ(state.BeginStream(), std::nullopt);
    EXPECT_TRUE(state.error().Is(v1::ERROR_REASON_MALFORMED_REQUEST));
    EXPECT_EQ(state.error().tries, 0);
  }
}

}  // namespace
}  // namespace userintent
