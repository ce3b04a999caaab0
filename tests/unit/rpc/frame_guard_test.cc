// What a peer may do with HTTP/2 and what ends its connection, frame by frame.
#include "server/rpc/frame_guard.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>

namespace userintent::rpc {
namespace {

using Fault = FrameGuard::Fault;
using std::chrono::seconds;

constexpr uint8_t kEnd = 1;
constexpr uint8_t kEndHeaders = 4;

enum Kind : uint8_t { kData, kHeaders, kPriority, kReset, kSettings, kPush, kPing, kGoaway, kWindow, kContinuation };

std::string Frame(uint8_t kind, uint8_t flags, uint32_t stream, size_t size = 0) {
  std::string out;
  for (const int shift : {16, 8, 0}) out += static_cast<char>(size >> shift);
  out += static_cast<char>(kind);
  out += static_cast<char>(flags);
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(stream >> shift);
  return out + std::string(size, '\xff');  // a payload that looks like anything but a head
}

std::string Call(uint32_t stream) { return Frame(kHeaders, kEndHeaders, stream, 60) + Frame(kData, kEnd, stream, 600); }
std::string Answer(uint32_t stream) {
  return Frame(kHeaders, kEndHeaders, stream, 20) + Frame(kData, 0, stream, 100) +
         Frame(kHeaders, kEndHeaders | kEnd, stream, 20);
}

class FrameGuardTest : public testing::Test {
 protected:
  FrameGuardTest() { EXPECT_EQ(Take(std::string(24, 'P')), Fault::kNone); }

  Fault Take(const std::string& bytes) { return guard_.OnReceived(bytes, now_); }

  FrameLimits limits_{.streams = 10,
                      .header_block = 1000,
                      .unfinished = 5000,
                      .all_unfinished = 8000,
                      .fair_unfinished = 1500,
                      .resets = 20,
                      .resets_per_second = 10,
                      .idle_frames = 30,
                      .idle_frames_per_second = 5,
                      .idle_frames_per_call = 2};
  std::atomic<int64_t> all_{0};
  SteadyTime now_ = SteadyTime{} + seconds(1000);
  FrameGuard guard_{limits_, all_};
};

TEST_F(FrameGuardTest, CallsThatEndCostNothing) {
  for (uint32_t stream = 1; stream < 20001; stream += 2) {
    ASSERT_EQ(Take(Call(stream)), Fault::kNone);
    guard_.OnSent(Answer(stream));
  }
  EXPECT_EQ(guard_.streams(), 0);
  EXPECT_EQ(guard_.unfinished(), 0);
  EXPECT_EQ(all_, 0);
  EXPECT_FALSE(guard_.unfinished_since());
}

TEST_F(FrameGuardTest, BytesMayBeCutAnywhere) {
  std::string bytes;
  for (uint32_t stream = 1; stream < 21; stream += 2) bytes += Call(stream);
  for (const char byte : bytes) ASSERT_EQ(Take({byte}), Fault::kNone);
  EXPECT_EQ(guard_.streams(), 10);
  for (uint32_t stream = 1; stream < 21; stream += 2) {
    for (const char byte : Answer(stream)) guard_.OnSent({&byte, 1});
  }
  EXPECT_EQ(guard_.streams(), 0);
}

TEST_F(FrameGuardTest, AnAnswerBeforeTheEndOfTheRequestCounts) {
  ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60)), Fault::kNone);
  guard_.OnSent(Answer(1));
  EXPECT_EQ(guard_.streams(), 1);
  ASSERT_EQ(Take(Frame(kData, kEnd, 1, 10)), Fault::kNone);
  EXPECT_EQ(guard_.streams(), 0);
}

TEST_F(FrameGuardTest, NoMoreStreamsThanTold) {
  std::string bytes;
  for (uint32_t stream = 1; stream < 21; stream += 2) bytes += Call(stream);
  ASSERT_EQ(Take(bytes), Fault::kNone);
  guard_.OnSent(Answer(7));
  ASSERT_EQ(Take(Call(21)), Fault::kNone);
  EXPECT_EQ(Take(Call(23)), Fault::kStreams);
  guard_.OnSent(Answer(9));
  EXPECT_EQ(Take(Frame(kPing, 0, 0, 8)), Fault::kStreams);  // for good
}

TEST_F(FrameGuardTest, AHeaderBlockEnds) {
  ASSERT_EQ(Take(Frame(kHeaders, 0, 1, 900)), Fault::kNone);
  EXPECT_EQ(guard_.unfinished_since(), now_);
  ASSERT_EQ(Take(Frame(kContinuation, kEndHeaders, 1, 100)), Fault::kNone);
  ASSERT_EQ(Take(Frame(kHeaders, 0, 3, 900)), Fault::kNone);
  ASSERT_EQ(Take(Frame(kContinuation, 0, 3, 100)), Fault::kNone);
  EXPECT_EQ(Take(Frame(kContinuation, kEndHeaders, 3, 1)), Fault::kHeaderBlock);
}

TEST_F(FrameGuardTest, EmptyContinuationsAreAFloodToo) {
  ASSERT_EQ(Take(Frame(kHeaders, 0, 1, 10)), Fault::kNone);
  Fault fault = Fault::kNone;
  for (int i = 0; i < 40 && fault == Fault::kNone; ++i) fault = Take(Frame(kContinuation, 0, 1));
  EXPECT_EQ(fault, Fault::kIdleFrames);
}

TEST_F(FrameGuardTest, CrumbsOfABlockAreAFloodToo) {
  EXPECT_EQ(Take(Frame(kHeaders, 0, 1, 60)), Fault::kNone);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(Take(Frame(kContinuation, 0, 1, 1)), Fault::kNone) << i;
  EXPECT_EQ(Take(Frame(kContinuation, 0, 1, 1)), Fault::kIdleFrames);
}

TEST_F(FrameGuardTest, TrailersAreAFloodToo) {
  EXPECT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60)), Fault::kNone);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60)), Fault::kNone) << i;
  EXPECT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60)), Fault::kIdleFrames);
}

TEST_F(FrameGuardTest, BytesOfOneConnectionAreBounded) {
  ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60) + Frame(kData, 0, 1, 2500)), Fault::kNone);
  ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders, 3, 60) + Frame(kData, 0, 3, 2500)), Fault::kNone);
  EXPECT_EQ(all_, 5000);
  ASSERT_EQ(Take(Frame(kData, kEnd, 1, 1000)), Fault::kNone);
  EXPECT_EQ(all_, 2500);
  ASSERT_EQ(Take(Frame(kReset, 0, 3, 4)), Fault::kNone);
  EXPECT_EQ(all_, 0);
  EXPECT_EQ(Take(Frame(kHeaders, kEndHeaders, 5, 60) + Frame(kData, 0, 5, 5001)), Fault::kUnfinished);
}

TEST_F(FrameGuardTest, BytesOfAllAreBoundedAndTheSmallSpared) {
  all_ = 7500;
  EXPECT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60) + Frame(kData, 0, 1, 1500)), Fault::kNone);
  {
    FrameGuard other(limits_, all_);
    EXPECT_EQ(
        other.OnReceived(std::string(24, 'P') + Frame(kHeaders, kEndHeaders, 1, 60) + Frame(kData, 0, 1, 1501), now_),
        Fault::kUnfinished);
  }
  EXPECT_EQ(all_, 9000);  // what was the other's is gone
}

TEST_F(FrameGuardTest, TheOldestRequestThatDoesNotEndIsKnown) {
  const SteadyTime first = now_;
  ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders, 1, 60)), Fault::kNone);
  now_ += seconds(5);
  ASSERT_EQ(Take(Call(3) + Frame(kHeaders, kEndHeaders, 5, 60)), Fault::kNone);
  EXPECT_EQ(guard_.unfinished_since(), first);
  ASSERT_EQ(Take(Frame(kData, kEnd, 1, 1)), Fault::kNone);
  EXPECT_EQ(guard_.unfinished_since(), now_);
  ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders | kEnd, 5, 1)), Fault::kNone);  // trailers end a request as well
  EXPECT_FALSE(guard_.unfinished_since());
}

TEST_F(FrameGuardTest, ResetsAreRationed) {
  uint32_t stream = 1;
  const auto reset = [&] {
    stream += 2;
    return Take(Call(stream) + Frame(kReset, 0, stream, 4));
  };
  for (int i = 0; i < 20; ++i) ASSERT_EQ(reset(), Fault::kNone);
  EXPECT_EQ(guard_.recent_resets(), 20);
  now_ += seconds(1);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(reset(), Fault::kNone);
  EXPECT_EQ(reset(), Fault::kResets);
}

TEST_F(FrameGuardTest, ResetsOfAnsweredCallsAreFree) {
  for (uint32_t stream = 1; stream < 2001; stream += 2) {
    ASSERT_EQ(Take(Frame(kHeaders, kEndHeaders, stream, 60)), Fault::kNone);
    guard_.OnSent(Answer(stream));
    ASSERT_EQ(Take(Frame(kReset, 0, stream, 4)), Fault::kNone);
  }
}

TEST_F(FrameGuardTest, ResetsThatThePeerBringsAboutCountAsItsOwn) {
  Fault fault = Fault::kNone;
  uint32_t stream = 1;
  for (; stream < 100 && fault == Fault::kNone; stream += 2) {
    fault = Take(Call(stream));
    guard_.OnSent(Frame(kReset, 0, stream, 4));
  }
  EXPECT_EQ(fault, Fault::kResets);
}

TEST_F(FrameGuardTest, FramesThatAskForNothingAreRationed) {
  for (const uint8_t kind : {kPriority, kSettings, kPing, kWindow, Kind{77}}) {
    for (int i = 0; i < 6; ++i) ASSERT_EQ(Take(Frame(kind, 0, 0, 8)), Fault::kNone);
  }
  EXPECT_EQ(Take(Frame(kData, 0, 99)), Fault::kIdleFrames);
}

TEST_F(FrameGuardTest, CallsAndAnswersAllowMoreOfThem) {
  for (uint32_t stream = 1; stream < 2001; stream += 2) {
    ASSERT_EQ(Take(Call(stream) + Frame(kWindow, 0, 0, 4) + Frame(kPing, 0, 0, 8) + Frame(kWindow, 0, 0, 4)),
              Fault::kNone);
    guard_.OnSent(Answer(stream));
  }
}

TEST_F(FrameGuardTest, ANumberThatIsOverBeginsNothing) {
  ASSERT_EQ(Take(Call(9)), Fault::kNone);
  guard_.OnSent(Answer(9));
  ASSERT_EQ(Take(Call(7) + Call(8) + Call(0)), Fault::kNone);
  EXPECT_EQ(guard_.streams(), 0);
}

}  // namespace
}  // namespace userintent::rpc
