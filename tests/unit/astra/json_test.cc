#include "server/astra/json.h"

#include <cstdint>
#include <random>
#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace userintent::astra {
namespace {

using Json = nlohmann::ordered_json;

const Uuid kAttempt = *ParseUuid("0F1E2D3C-4B5A-4978-8695-a4b3c2d1e0ff");
constexpr char kAttemptText[] = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff";

v1::CreateUserIntentRequest Full() {
  v1::CreateUserIntentRequest request;
  request.set_request_id("11111111-2222-4333-8444-555555555555");
  request.set_email("Ada@Example.com");
  request.set_phone("+15557771234");
  request.set_first_name("Ada");
  request.set_last_name("Example");
  request.set_preferred_first_name("A");
  request.set_preferred_last_name("E");
  request.set_preferred_pronouns("she/her");
  request.set_address1("1 Test Street");
  request.set_address2("Apt 2");
  request.set_city("Sampleton");
  request.set_state("CA");
  request.set_postal_code("94304-1234");
  request.set_date_of_birth("1985-02-03");
  request.set_ssn_last_four("0123");
  request.set_ip_address("8.8.8.8");
  request.set_verification_type(v1::VERIFICATION_TYPE_RECEIVE_ONLY);
  (*request.mutable_metadata())["customer"] = "c-1";
  request.set_validate_only(true);
  request.set_allow_repeat(true);
  request.set_supersedes_request_id("99999999-2222-4333-8444-555555555555");
  return request;
}

v1::CreateUserIntentRequest Least() {
  v1::CreateUserIntentRequest request;
  request.set_email("a@example.com");
  request.set_phone("+15557771234");
  request.set_first_name("Ada");
  request.set_last_name("Example");
  request.set_address1("1 Test Street");
  request.set_city("Sampleton");
  request.set_state("CA");
  request.set_postal_code("94304");
  request.set_ip_address("8.8.8.8");
  return request;
}

TEST(RequestBody, EveryFieldUnderAstrasName) {
  EXPECT_EQ(RequestBody(Full(), &kAttempt),
            std::string(R"({"email":"Ada@Example.com","phone":"+15557771234","first_name":"Ada","last_name":"Example",)"
                        R"("preferred_first_name":"A","preferred_last_name":"E","preferred_pronouns":"she/her",)"
                        R"("address1":"1 Test Street","address2":"Apt 2","city":"Sampleton","state":"CA",)"
                        R"("postal_code":"94304-1234","date_of_birth":"1985-02-03","ssn":"0123",)"
                        R"("ip_address":"8.8.8.8","kyc_type":"receive-only",)"
                        R"("metadata":{"customer":"c-1","gateway_attempt_id":")") +
                kAttemptText + R"("}})");
}

TEST(RequestBody, LeavesOutWhatIsEmptyButSendsAddress2) {
  EXPECT_EQ(RequestBody(Least(), nullptr),
            R"({"email":"a@example.com","phone":"+15557771234","first_name":"Ada","last_name":"Example",)"
            R"("address1":"1 Test Street","address2":"","city":"Sampleton","state":"CA","postal_code":"94304",)"
            R"("ip_address":"8.8.8.8"})");
}

TEST(RequestBody, KycType) {
  v1::CreateUserIntentRequest request = Least();
  EXPECT_FALSE(Json::parse(RequestBody(request, nullptr)).contains("kyc_type"));
  request.set_verification_type(v1::VERIFICATION_TYPE_VERIFIED);
  EXPECT_EQ(Json::parse(RequestBody(request, nullptr))["kyc_type"], "verified");
  request.set_verification_type(v1::VERIFICATION_TYPE_UNVERIFIED);
  EXPECT_EQ(Json::parse(RequestBody(request, nullptr))["kyc_type"], "unverified");
  request.set_verification_type(v1::VERIFICATION_TYPE_RECEIVE_ONLY);
  EXPECT_EQ(Json::parse(RequestBody(request, nullptr))["kyc_type"], "receive-only");
}

TEST(RequestBody, AttemptIdOnlyWhereThereIsRoom) {
  for (int keys = 0; keys <= 25; ++keys) {
    SCOPED_TRACE(keys);
    v1::CreateUserIntentRequest request = Least();
    for (int i = 0; i < keys; ++i) (*request.mutable_metadata())["k" + std::to_string(i)] = "v" + std::to_string(i);
    const Json body = Json::parse(RequestBody(request, &kAttempt));
    ASSERT_TRUE(body.contains("metadata"));
    EXPECT_EQ(body["metadata"].size(), static_cast<size_t>(keys < 25 ? keys + 1 : 25));
    for (int i = 0; i < keys; ++i) EXPECT_EQ(body["metadata"]["k" + std::to_string(i)], "v" + std::to_string(i));
    EXPECT_EQ(body["metadata"].contains("gateway_attempt_id"), keys < 25);
    if (keys < 25) {
      EXPECT_EQ(body["metadata"]["gateway_attempt_id"], kAttemptText);
    }
  }
}

// A code point as UTF-8.
std::string Utf8(uint32_t c) {
  std::string s;
  const auto add = [&s](uint32_t byte) { s += static_cast<char>(byte); };
  if (c < 0x80) {
    add(c);
  } else if (c < 0x800) {
    add(0xc0 | c >> 6);
    add(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    add(0xe0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3f));
    add(0x80 | (c & 0x3f));
  } else {
    add(0xf0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3f));
    add(0x80 | (c >> 6 & 0x3f));
    add(0x80 | (c & 0x3f));
  }
  return s;
}

void ExpectRoundTrip(const std::string& text) {
  v1::CreateUserIntentRequest request = Full();
  request.set_first_name(text);
  request.set_address2(text);
  request.set_preferred_pronouns(text + text);
  (*request.mutable_metadata())["k"] = text;
  const Json body = Json::parse(RequestBody(request, &kAttempt), nullptr, /*allow_exceptions=*/false);
  ASSERT_FALSE(body.is_discarded());
  ASSERT_EQ(body.size(), 17u);
  EXPECT_EQ(body["first_name"], text);
  EXPECT_EQ(body["address2"], text);
  EXPECT_EQ(body["preferred_pronouns"], text + text);
  EXPECT_EQ(body["metadata"]["k"], text);
  EXPECT_EQ(body["last_name"], "Example");
}

TEST(RequestBody, EveryAsciiCharacterSurvives) {
  std::string all;
  for (uint32_t c = 0; c < 0x80; ++c) {
    SCOPED_TRACE(c);
    ExpectRoundTrip(Utf8(c));
    ExpectRoundTrip("a" + Utf8(c) + "b");
    all += Utf8(c);
  }
  ExpectRoundTrip(all);
  ExpectRoundTrip(R"(","ssn":"0000","x":")");
  ExpectRoundTrip(R"(\)");
  ExpectRoundTrip(R"(\u0041\")");
}

TEST(RequestBody, RandomUnicodeSurvives) {
  std::mt19937 random(20240611);
  std::uniform_int_distribution<uint32_t> any(0, 0x10ffff), ascii(0, 0x7f), length(0, 100), coin(0, 1);
  for (int round = 0; round < 2000; ++round) {
    std::string text = "x";  // an empty optional field would be left out
    for (uint32_t i = length(random); i > 0; --i) {
      const uint32_t c = coin(random) == 0 ? ascii(random) : any(random);
      if (c < 0xd800 || c > 0xdfff) text += Utf8(c);
    }
    ExpectRoundTrip(text);
    if (HasFailure()) return;
  }
}

// The string must not grow while personal data is in it: growing leaves an unwiped copy on the heap. Seen from the
// outside as: the reserved size suffices for the longest values, all of them quotes.
TEST(RequestBody, NeverGrowsForValidValues) {
  v1::CreateUserIntentRequest request = Full();
  const std::string quotes(100, '"');
  for (auto* field : {request.mutable_first_name(), request.mutable_last_name(), request.mutable_preferred_first_name(),
                      request.mutable_preferred_last_name(), request.mutable_preferred_pronouns(),
                      request.mutable_address1(), request.mutable_address2(), request.mutable_city()}) {
    *field = quotes;
  }
  for (int i = 0; i < 23; ++i) (*request.mutable_metadata())["k" + std::to_string(i)] = std::string(256, '\\');
  const std::string body = RequestBody(request, &kAttempt);
  size_t values = 0;
  for (const auto& [key, value] : request.metadata()) values += key.size() + value.size() + 6;
  values += 8 * quotes.size() + request.email().size() + request.phone().size() + request.state().size() +
            request.postal_code().size() + request.date_of_birth().size() + request.ssn_last_four().size() +
            request.ip_address().size();
  EXPECT_LE(body.size(), 2 * values + 512);
  EXPECT_EQ(body.capacity(), 2 * values + 512);
}

// Eight bytes are looked at together: whatever needs an escape must be seen at each place among them, beside whatever.
TEST(RequestBody, EscapesAreFoundAtEveryPlace) {
  const std::string plain = "plain \x7f!#[]^ and so on \xc3\xa9";
  for (int byte = 0; byte < 0x80; ++byte) {
    for (const std::string& beside : {std::string(), std::string("\""), std::string("\\"), std::string(1, '\x1f')}) {
      for (size_t at = 0; at <= 17; ++at) {
        v1::CreateUserIntentRequest request = Least();
        std::string text = plain;
        text.insert(at, std::string(1, static_cast<char>(byte)) + beside);
        request.set_city(text);
        ASSERT_EQ(Json::parse(RequestBody(request, nullptr)).at("city"), text) << byte << " at " << at;
      }
    }
  }
}

}  // namespace
}  // namespace userintent::astra
