#include "server/rpc/raw_message.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::rpc {
namespace {

grpc::Slice SliceOf(std::string_view bytes) {
  grpc::Slice slice(bytes.size());
  std::memcpy(const_cast<uint8_t*>(slice.begin()), bytes.data(), bytes.size());
  return slice;
}

bool Overwritten(const grpc::Slice& slice) {
  return std::all_of(slice.begin(), slice.end(), [](uint8_t byte) { return byte == 0; });
}

// Whether it came in one piece or in several, whole or broken: the received bytes are gone, and the message is right.
TEST(RawMessage, ReceivedBytesAreOverwritten) {
  v1::CreateUserIntentRequest request;
  request.set_email(std::string(100, 'e'));
  request.set_first_name(std::string(100, 'f'));
  const std::string bytes = request.SerializeAsString();
  for (const size_t pieces : {size_t{1}, size_t{2}}) {
    for (const bool whole : {true, false}) {
      const std::string sent = whole ? bytes : bytes.substr(0, bytes.size() - 1);
      std::vector<grpc::Slice> slices;
      for (size_t i = 0; i < pieces; ++i) {
        const size_t begin = sent.size() * i / pieces;
        slices.push_back(SliceOf(std::string_view(sent).substr(begin, sent.size() * (i + 1) / pieces - begin)));
      }
      grpc::ByteBuffer buffer(slices.data(), slices.size());
      v1::CreateUserIntentRequest parsed;
      const intent::WireProblem problem = FromRaw(buffer, &parsed);
      EXPECT_EQ(problem, whole ? intent::WireProblem::kNone : intent::WireProblem::kMalformed);
      for (const grpc::Slice& slice : slices) EXPECT_TRUE(Overwritten(slice)) << pieces << whole;
      EXPECT_EQ(parsed.email(), whole ? request.email() : "");
      EXPECT_FALSE(buffer.Valid());
    }
  }
}

}  // namespace
}  // namespace userintent::rpc
