// What is a request on the wire, what is damaged, and what is from another version of the API.
#include "server/intent/strict_parse.h"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "tests/unit/intent/valid_request.h"
#include "userintent/v1/user_intent_service.pb.h"

#if __has_include("google/protobuf/stubs/logging.h")
#include "google/protobuf/stubs/logging.h"
#else
#include "absl/base/log_severity.h"
#include "absl/log/globals.h"
#endif

namespace userintent::intent {
namespace {

using google::protobuf::util::MessageDifferencer;
using Request = v1::CreateUserIntentRequest;

// What the generated parser says of bytes that are no UTF-8 is not printed while this is there.
#if __has_include("google/protobuf/stubs/logging.h")
using Quiet = google::protobuf::LogSilencer;
#else
class Quiet {
 public:
  Quiet() : before_(absl::MinLogLevel()) { absl::SetMinLogLevel(absl::LogSeverityAtLeast::kInfinity); }
  ~Quiet() { absl::SetMinLogLevel(before_); }

 private:
  const absl::LogSeverityAtLeast before_;
};
#endif

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}
std::string Tag(uint32_t field, uint32_t wire_type) { return Varint(uint64_t{field} << 3 | wire_type); }
std::string Number(uint32_t field, uint64_t value) { return Tag(field, 0) + Varint(value); }
std::string Bytes(uint32_t field, const std::string& bytes) { return Tag(field, 2) + Varint(bytes.size()) + bytes; }
std::string Fixed64(uint32_t field) { return Tag(field, 1) + "12345678"; }
std::string Fixed32(uint32_t field) { return Tag(field, 5) + "1234"; }
std::string Group(uint32_t field, const std::string& body) { return Tag(field, 3) + body + Tag(field, 4); }

constexpr uint32_t kMetadata = Request::kMetadataFieldNumber;
const std::string kEntry = Bytes(1, "k") + Bytes(2, "v");

WireProblem Parse(const std::string& bytes) {
  Request request;
  return ParseStrict(bytes, &request);
}

std::string Valid() { return ValidRequest().SerializeAsString(); }

TEST(ParseStrict, AValidRequestComesBack) {
  Request request;
  ASSERT_EQ(ParseStrict(Valid(), &request), WireProblem::kNone);
  EXPECT_TRUE(MessageDifferencer::Equals(request, ValidRequest()));
  EXPECT_EQ(Parse(""), WireProblem::kNone);  // every field at its default
  EXPECT_EQ(Parse(Bytes(kMetadata, kEntry)), WireProblem::kNone);
  EXPECT_EQ(Parse(Bytes(kMetadata, "")), WireProblem::kNone);  // an entry of defaults
  EXPECT_EQ(Parse(Number(19, 1)), WireProblem::kNone);
}

TEST(ParseStrict, ForgetsWhatTheMessageHeld) {
  Request request = ValidRequest();
  ASSERT_EQ(ParseStrict(Bytes(4, "Grace"), &request), WireProblem::kNone);
  EXPECT_EQ(request.first_name(), "Grace");
  EXPECT_EQ(request.last_name(), "");
}

TEST(ParseStrict, TheLastOccurrenceWins) {
  Request request;
  ASSERT_EQ(ParseStrict(Bytes(4, "Ada") + Number(17, 1) + Bytes(kMetadata, Bytes(1, "k") + Bytes(2, "old")) +
                            Bytes(4, "Grace") + Number(17, 2) +
                            Bytes(kMetadata, Bytes(2, "x") + Bytes(1, "q") + Bytes(1, "k") + Bytes(2, "new")),
                        &request),
            WireProblem::kNone);
  EXPECT_EQ(request.first_name(), "Grace");
  EXPECT_EQ(request.verification_type(), v1::VERIFICATION_TYPE_UNVERIFIED);
  ASSERT_EQ(request.metadata_size(), 1);
  EXPECT_EQ(request.metadata().at("k"), "new");
}

TEST(ParseStrict, EnumNumbersAreOpen) {
  Request request;
  ASSERT_EQ(ParseStrict(Number(17, 99), &request), WireProblem::kNone);
  EXPECT_EQ(static_cast<int>(request.verification_type()), 99);
}

TEST(ParseStrict, UnknownFields) {
  for (const std::string& unknown : {
           Number(22, 1),
           Number(22, 0),  // a default is a field all the same
           Bytes(22, ""),
           Fixed32(22),
           Fixed64(22),
           Group(22, ""),
           Group(22, Number(1, 1) + Group(3, Bytes(4, "x"))),
           Number(536870911, 1),  // the largest number
           Number(1000, 1),
           Number(4, 1),  // first_name as a number
           Fixed64(4),    // ... and in the other wrong wire types
           Fixed32(4),
           Group(4, ""),
           Bytes(17, Varint(1)),  // an enum that is not repeated has no packed form
           Fixed32(17),
           Bytes(19, Varint(1)),
           Number(kMetadata, 1),
           Group(kMetadata, kEntry),
           Bytes(22, "\xff"),  // bytes of an unknown field need not be UTF-8
       }) {
    EXPECT_EQ(Parse(unknown), WireProblem::kUnknownFields) << testing::PrintToString(unknown);
    EXPECT_EQ(Parse(Valid() + unknown), WireProblem::kUnknownFields) << testing::PrintToString(unknown);
    EXPECT_EQ(Parse(unknown + Valid()), WireProblem::kUnknownFields) << testing::PrintToString(unknown);
  }
}

// The generated parser drops these without a trace.
TEST(ParseStrict, UnknownFieldsInsideAMapEntry) {
  for (const std::string& unknown : {Number(3, 1), Bytes(3, "x"), Number(1, 1), Number(2, 1), Fixed32(1), Fixed64(9),
                                     Group(3, ""), Group(3, Bytes(1, "x"))}) {
    for (const std::string& entry : {kEntry + unknown, unknown + kEntry, unknown}) {
      EXPECT_EQ(Parse(Valid() + Bytes(kMetadata, entry)), WireProblem::kUnknownFields) << testing::PrintToString(entry);
      Request request;
      ASSERT_TRUE(request.ParseFromString(Bytes(kMetadata, entry)));
      EXPECT_EQ(request.GetReflection()->GetUnknownFields(request).field_count(), 0);
    }
  }
}

TEST(ParseStrict, UnknownFieldsAtDepth) {
  v1::GetCreationResponse response;
  const std::string sound = Bytes(1, Bytes(3, Bytes(4, Number(1, 5))));  // creation.user_intent.create_time.seconds
  EXPECT_EQ(ParseStrict(sound, &response), WireProblem::kNone);
  const std::string newer = Bytes(1, Bytes(3, Bytes(4, Number(1, 5) + Number(3, 1))));
  EXPECT_EQ(ParseStrict(newer, &response), WireProblem::kUnknownFields);
  // The map of ErrorInfo, two messages down.
  EXPECT_EQ(ParseStrict(Bytes(1, Bytes(4, Bytes(3, kEntry))), &response), WireProblem::kNone);
  EXPECT_EQ(ParseStrict(Bytes(1, Bytes(4, Bytes(3, kEntry + Number(7, 1)))), &response), WireProblem::kUnknownFields);
}

TEST(ParseStrict, DamagedBytes) {
  for (const std::string& damaged : {
           std::string("\xff"),
           std::string(1, '\0'),                                  // field number 0
           std::string("\x02\x00", 2),                            // field number 0, length-delimited
           Tag(4, 2),                                             // no length
           Tag(4, 2) + Varint(5) + "Ada",                         // length beyond the end
           Tag(4, 2) + Varint(0x7fffffff) + "Ada",                //
           Tag(4, 2) + Varint(0xffffffff) + "Ada",                //
           Tag(4, 2) + Varint(~uint64_t{0}) + "Ada",              //
           Tag(19, 0),                                            // no number
           Tag(19, 0) + std::string(11, '\xff'),                  // a number of eleven bytes
           Tag(4, 6) + "x",                                       // wire types 6 and 7 do not exist
           Tag(22, 7) + "x",                                      //
           Tag(22, 4),                                            // end of a group that never began
           Tag(22, 3),                                            // a group that never ends
           Tag(22, 3) + Tag(23, 4),                               // ... or ends as another
           Tag(22, 1) + "1234",                                   // four bytes of eight
           Bytes(kMetadata, Tag(1, 2) + Varint(9) + "k"),         // key longer than its entry
           Bytes(kMetadata, Tag(1, 2) + Varint(3) + "k") + "zz",  // ... though the bytes behind it would do
           Bytes(kMetadata, Tag(1, 4)),
           Bytes(kMetadata, std::string(1, '\0')),
           Tag(kMetadata, 2) + Varint(40) + kEntry,  // entry longer than the request
       }) {
    EXPECT_EQ(Parse(damaged), WireProblem::kMalformed) << testing::PrintToString(damaged);
    EXPECT_EQ(Parse(Valid() + damaged), WireProblem::kMalformed) << testing::PrintToString(damaged);
    // Damage counts before unknown fields.
    EXPECT_EQ(Parse(Number(22, 1) + damaged), WireProblem::kMalformed) << testing::PrintToString(damaged);
  }
}

TEST(ParseStrict, EveryCutIsDamagedOrShorter) {
  const std::string whole = Valid();
  int damaged = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    const WireProblem problem = Parse(whole.substr(0, size));
    EXPECT_NE(problem, WireProblem::kUnknownFields) << size;
    damaged += problem == WireProblem::kMalformed;
  }
  EXPECT_GT(damaged, 150);
}

TEST(ParseStrict, StringsThatAreNotUtf8) {
  ::testing::internal::CaptureStderr();
  for (const std::string& damaged : {std::string("\xff"), std::string("Ada\xc3"), std::string("\xc0\xaf"),
                                     std::string("\xed\xa0\x80"), std::string("\xf4\x90\x80\x80")}) {
    for (uint32_t field : {1u, 2u, 3u, 4u, 9u, 16u, 21u}) {
      EXPECT_EQ(Parse(Bytes(field, damaged)), WireProblem::kMalformed);
      EXPECT_EQ(Parse(Bytes(field, damaged) + Bytes(field, "sound")), WireProblem::kMalformed);
    }
    EXPECT_EQ(Parse(Bytes(kMetadata, Bytes(1, damaged) + Bytes(2, "v"))), WireProblem::kMalformed);
    EXPECT_EQ(Parse(Bytes(kMetadata, Bytes(1, "k") + Bytes(2, damaged))), WireProblem::kMalformed);
    EXPECT_EQ(Parse(Number(22, 1) + Bytes(4, damaged)), WireProblem::kMalformed);
  }
  // protobuf's own parser would have written lines there that are not the server's log format.
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// Does any of `request`'s messages hold unknown fields, as far as protobuf itself can tell?
bool TopLevelUnknown(const Request& request) {
  return request.GetReflection()->GetUnknownFields(request).field_count() > 0;
}

void ExpectAgreement(const std::string& bytes) {
  Request strict;
  Request plain;
  const WireProblem problem = ParseStrict(bytes, &strict);
  const bool parses = plain.ParseFromString(bytes);
  ASSERT_EQ(problem == WireProblem::kMalformed, !parses) << testing::PrintToString(bytes);
  if (!parses) return;
  if (TopLevelUnknown(plain)) {
    ASSERT_EQ(problem, WireProblem::kUnknownFields) << testing::PrintToString(bytes);
  }
  if (problem == WireProblem::kNone) {
    ASSERT_TRUE(MessageDifferencer::Equals(strict, plain));
    // What is fully known survives a round trip with nothing dropped.
    ASSERT_EQ(Parse(plain.SerializeAsString()), WireProblem::kNone);
  }
}

TEST(ParseStrict, AgreesWithProtobufOnRandomBytes) {
  const Quiet quiet;
  std::mt19937 random(20240517);
  for (int i = 0; i < 200000; ++i) {
    std::string bytes(random() % 24, '\0');
    // Small values make tags, types and lengths that mean something.
    for (char& byte : bytes) byte = static_cast<char>(random() % 3 == 0 ? random() % 256 : random() % 40);
    ExpectAgreement(bytes);
    if (HasFatalFailure()) return;
  }
}

TEST(ParseStrict, AgreesWithProtobufOnDamagedRequests) {
  const Quiet quiet;
  std::mt19937 random(7);
  const std::string whole = Valid();
  for (int i = 0; i < 100000; ++i) {
    std::string bytes = whole;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t at = random() % bytes.size();
      switch (random() % 3) {
        case 0:
          bytes[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          bytes.erase(at, 1 + random() % 3);
          break;
        default:
          bytes.insert(at, 1, static_cast<char>(random() % 256));
      }
      if (bytes.empty()) bytes = whole;
    }
    ExpectAgreement(bytes);
    if (HasFatalFailure()) return;
  }
}

TEST(ParseStrict, DeepGroupsEndInAnAnswer) {
  const Quiet quiet;
  for (int depth : {1, 50, 99, 100, 101, 102, 5000}) {
    std::string bytes;
    for (int i = 0; i < depth; ++i) bytes += Tag(22, 3);
    for (int i = 0; i < depth; ++i) bytes += Tag(22, 4);
    ExpectAgreement(bytes);
  }
}

}  // namespace
}  // namespace userintent::intent
