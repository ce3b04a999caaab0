// The rules of contract section 2: for every row and every boundary a value that passes and one that does not.
#include "server/intent/rules.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "tests/unit/intent/valid_request.h"

namespace userintent::intent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Request = v1::CreateUserIntentRequest;

constexpr absl::CivilDay kToday(2025, 3, 1);

std::vector<std::string> BrokenFields(const Request& request, const RulesOptions& options = {},
                                      absl::CivilDay today = kToday) {
  std::vector<std::string> fields;
  for (const Violation& violation : Validate(request, options, today)) fields.emplace_back(violation.field);
  return fields;
}

Request With(const std::string& field, const std::string& value) {
  Request request = ValidRequest();
  request.GetReflection()->SetString(&request, Request::descriptor()->FindFieldByName(field), value);
  return request;
}

std::string Times(size_t n, std::string_view text) {
  std::string result;
  for (size_t i = 0; i < n; ++i) result += text;
  return result;
}

// Every control and bidirectional character that is refused, as UTF-8.
std::vector<std::string> UnsafeCharacters() {
  std::vector<std::string> all;
  for (int c = 0; c < 0x20; ++c) all.emplace_back(1, static_cast<char>(c));
  all.emplace_back("\x7f");
  for (int c = 0x80; c < 0xa0; ++c) all.push_back(std::string("\xc2") + static_cast<char>(c));
  for (int c = 0xaa; c <= 0xae; ++c) all.push_back(std::string("\xe2\x80") + static_cast<char>(c));  // U+202A-U+202E
  for (int c = 0xa6; c <= 0xa9; ++c) all.push_back(std::string("\xe2\x81") + static_cast<char>(c));  // U+2066-U+2069
  return all;
}

const std::vector<std::string>& DamagedUtf8() {
  static const auto& all = *new std::vector<std::string>{
      "\x80",              // continuation without a lead
      "\xff",              // never a byte of UTF-8
      "\xc3",              // cut after one byte
      "\xe2\x82",          // cut after two
      "\xf0\x9f\x98",      // cut after three
      "\xc0\xaf",          // overlong, two bytes
      "\xc1\xbf",          // overlong, two bytes, the last of them
      "\xe0\x9f\xbf",      // overlong, three
      "\xf0\x8f\xbf\xbf",  // overlong, four
      "\xed\xa0\x80",      // first surrogate
      "\xed\xbf\xbf",      // last surrogate
      "\xf4\x90\x80\x80",  // U+110000
      "\xf5\x80\x80\x80",
      "\xc3\x28",  // lead, then ASCII
  };
  return all;
}

TEST(Rules, AValidRequestPasses) { EXPECT_THAT(BrokenFields(ValidRequest()), IsEmpty()); }

struct Case {
  std::string field;
  std::string value;
  bool accepted;
};

// Shown when a test fails, instead of a value that may hold control characters.
void PrintTo(const Case& c, std::ostream* out) { *out << c.field << " of " << c.value.size() << " bytes"; }

class FieldRule : public ::testing::TestWithParam<Case> {};

TEST_P(FieldRule, DecidesThisValue) {
  const Case& c = GetParam();
  const auto broken = BrokenFields(With(c.field, c.value));
  if (c.accepted) {
    EXPECT_THAT(broken, IsEmpty()) << c.value;
  } else {
    EXPECT_THAT(broken, ElementsAre(c.field)) << c.value;
  }
}

const std::string kUuid = "123e4567-e89b-42d3-a456-426614174000";
const std::string kLabels = Times(30, "abcdefg.");  // 240 bytes

INSTANTIATE_TEST_SUITE_P(
    RequestId, FieldRule,
    ::testing::Values(Case{"request_id", kUuid, true}, Case{"request_id", "123E4567-E89B-42D3-A456-42661417400F", true},
                      Case{"request_id", "00000000-0000-0000-0000-000000000000", true}, Case{"request_id", "", false},
                      Case{"request_id", "123e4567e89b42d3a456426614174000", false},
                      Case{"request_id", "{" + kUuid + "}", false}, Case{"request_id", kUuid + " ", false},
                      Case{"request_id", kUuid.substr(1), false},
                      Case{"request_id", "g23e4567-e89b-42d3-a456-426614174000", false},
                      Case{"request_id", "123e4567e-89b-42d3-a456-426614174000", false},
                      Case{"supersedes_request_id", kUuid, true}, Case{"supersedes_request_id", "", true},
                      Case{"supersedes_request_id", kUuid + "0", false}, Case{"supersedes_request_id", "none", false}));

INSTANTIATE_TEST_SUITE_P(
    Email, FieldRule,
    ::testing::Values(
        Case{"email", "a@b.c", true}, Case{"email", "a+b@mail.example.com", true},
        Case{"email", "\"quoted\"@example.com", true}, Case{"email", "", false}, Case{"email", "ada", false},
        Case{"email", "ada.example.com", false}, Case{"email", "@example.com", false}, Case{"email", "a@", false},
        Case{"email", "@", false}, Case{"email", "a@@example.com", false}, Case{"email", "a@b@example.com", false},
        Case{"email", "a@example", false}, Case{"email", "a@.com", false}, Case{"email", "a@example.", false},
        Case{"email", "a@example..com", false}, Case{"email", "a@.", false}, Case{"email", "a b@example.com", false},
        Case{"email", "a@exa mple.com", false}, Case{"email", " a@example.com", false},
        Case{"email", "a@example.com\n", false}, Case{"email", "a\x7f@example.com", false},
        Case{"email", "\xc3\xa4@example.com", false}, Case{"email", "a@ex\xc3\xa4mple.com", false},
        Case{"email", Times(64, "a") + "@example.com", true}, Case{"email", Times(65, "a") + "@example.com", false},
        Case{"email", Times(10, "a") + "@" + kLabels + "com", true},     // 254
        Case{"email", Times(11, "a") + "@" + kLabels + "com", false}));  // 255

INSTANTIATE_TEST_SUITE_P(Phone, FieldRule,
                         ::testing::Values(Case{"phone", "+12125550100", true}, Case{"phone", "+19995550100", true},
                                           Case{"phone", "", false}, Case{"phone", "+11125550100", false},
                                           Case{"phone", "+10125550100", false}, Case{"phone", "+1212555010", false},
                                           Case{"phone", "+121255501000", false}, Case{"phone", "12125550100", false},
                                           Case{"phone", "2125550100", false}, Case{"phone", "+22125550100", false},
                                           Case{"phone", "+1 2125550100", false}, Case{"phone", "+1212555010O", false},
                                           Case{"phone", "+1:125550100", false},
                                           Case{"phone", "+1212555010\xd9\xa0", false}));

std::vector<Case> RequiredTextCases() {
  std::vector<Case> cases;
  for (const char* field : {"first_name", "last_name", "address1", "city"}) {
    for (const std::string& value :
         {std::string("A"), Times(100, "n"), Times(100, "\xc3\xa9"), Times(100, "\xf0\x9f\x98\x80"),
          std::string("\xe2\x80\x8f\xd7\x90"), std::string(" A "),
          std::string("O'Brien-Nu\xc3\xb1"
                      "ez"),
          std::string("\u0646\u0645\u06cc\u200c\u062f\u0627\u0646"),  // ZWNJ inside of a Persian word
          std::string("\u0c95\u0ccd\u200d\u0cb7"),                    // ZWJ inside of a Kannada one
          std::string("A\u200b"), std::string("\u00adA"), std::string("e\u0301"), std::string("\u2801"),
          std::string("\U00030edd"),  // an ideograph
          std::string("\U0002ebf0"),  // one that Unicode 15.1 added: a library may not know it yet
          std::string("\ue000")}) {   // private use: somebody has a font for it
      cases.push_back({field, value, true});
    }
    for (const std::string& value :
         {std::string(), std::string(" "), std::string("   "), std::string("\xc2\xa0"),  // no-break space
          std::string("\xe1\x9a\x80"), std::string("\xe2\x80\x80"), std::string("\xe2\x80\x8a"),
          std::string("\xe2\x80\xa8"), std::string("\xe2\x80\xa9"), std::string("\xe2\x80\xaf"),
          std::string("\xe2\x81\x9f"), std::string("\xe3\x80\x80"), std::string(" \xc2\xa0\xe3\x80\x80 "),
          std::string("\u200b\u200b \u2060"), Times(101, "n"), Times(101, "\xc3\xa9"),
          Times(101, "\xf0\x9f\x98\x80")}) {
      cases.push_back({field, value, false});
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(RequiredText, FieldRule, ::testing::ValuesIn(RequiredTextCases()));

// Each alone, and three of them: nobody can see such a name.
std::vector<std::string> InvisibleTexts() {
  std::vector<std::string> texts;
  for (const char* character : {
           "\u00ad",      // SOFT HYPHEN
           "\u034f",      // COMBINING GRAPHEME JOINER
           "\u061c",      // ARABIC LETTER MARK
           "\u115f",      // HANGUL CHOSEONG FILLER
           "\u1160",      // HANGUL JUNGSEONG FILLER
           "\u17b4",      // KHMER VOWEL INHERENT AQ
           "\u180b",      // MONGOLIAN FREE VARIATION SELECTOR ONE
           "\u180e",      // MONGOLIAN VOWEL SEPARATOR
           "\u200b",      // ZERO WIDTH SPACE
           "\u200c",      // ZERO WIDTH NON-JOINER
           "\u200d",      // ZERO WIDTH JOINER
           "\u200e",      // LEFT-TO-RIGHT MARK
           "\u200f",      // RIGHT-TO-LEFT MARK
           "\u2060",      // WORD JOINER
           "\u2062",      // INVISIBLE TIMES
           "\u2065",      // reserved, to be ignored
           "\u2800",      // BRAILLE PATTERN BLANK
           "\u3164",      // HANGUL FILLER
           "\ufe0f",      // VARIATION SELECTOR-16
           "\ufeff",      // ZERO WIDTH NO-BREAK SPACE
           "\uffa0",      // HALFWIDTH HANGUL FILLER
           "\ufff0",      // reserved, to be ignored
           "\ufff9",      // INTERLINEAR ANNOTATION ANCHOR
           "\ufffc",      // OBJECT REPLACEMENT CHARACTER
           "\ufffe",      // a noncharacter
           "\ufdd0",      // a noncharacter
           "\U0010ffff",  // the last noncharacter
           "\U00013441",  // EGYPTIAN HIEROGLYPH FULL BLANK
           "\U0001bca0",  // SHORTHAND FORMAT LETTER OVERLAP
           "\U0001d159",  // MUSICAL SYMBOL NULL NOTEHEAD
           "\U0001d173",  // MUSICAL SYMBOL BEGIN BEAM
           "\U000e0041",  // TAG LATIN CAPITAL LETTER A
           "\U000e0100",  // VARIATION SELECTOR-17
           "\u0301",      // COMBINING ACUTE ACCENT, with no letter below it
           "\u20dd",      // COMBINING ENCLOSING CIRCLE, around nothing
           "\u093f",      // a vowel sign without its consonant
       }) {
    texts.emplace_back(character);
    texts.push_back(std::string(character) + " " + character);
  }
  return texts;
}

std::vector<Case> InvisibleCases() {
  std::vector<Case> cases;
  for (const char* field : {"first_name", "last_name", "address1", "city", "preferred_first_name",
                            "preferred_last_name", "preferred_pronouns", "address2"}) {
    for (const std::string& text : InvisibleTexts()) cases.push_back({field, text, false});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(NobodyCanSeeIt, FieldRule, ::testing::ValuesIn(InvisibleCases()));

TEST(Rules, MetadataThatNobodyCanSeeIsRefused) {
  for (const std::string& text : InvisibleTexts()) {
    Request request = ValidRequest();
    (*request.mutable_metadata())["note"] = text;
    EXPECT_THAT(BrokenFields(request), ElementsAre("metadata"));
    (*request.mutable_metadata())["note"] = text + "A";
    EXPECT_THAT(BrokenFields(request), IsEmpty());
  }
}

TEST(Rules, AMappedAddressIsToldToBeWrittenAsIpv4) {
  for (const char* address : {"::ffff:8.8.8.8", "::FFFF:8.8.8.8", "0:0:0:0:0:ffff:808:808", "::ffff:10.0.0.1"}) {
    const auto violations = Validate(With("ip_address", address), {}, kToday);
    ASSERT_EQ(violations.size(), 1u) << address;
    EXPECT_THAT(std::string(violations[0].description), AllOf(HasSubstr("mapped"), HasSubstr("write it as IPv4")));
  }
  for (const char* address : {"::1", "64:ff9b::8.8.8.8", "10.0.0.1", "::8.8.8.8"}) {
    const auto violations = Validate(With("ip_address", address), {}, kToday);
    ASSERT_EQ(violations.size(), 1u) << address;
    EXPECT_THAT(std::string(violations[0].description), HasSubstr("must be public"));
  }
  EXPECT_THAT(BrokenFields(With("ip_address", "::ffff:8.8.8.8"), {.allow_non_public_ip = true}), IsEmpty());
}

std::vector<Case> OptionalTextCases() {
  std::vector<Case> cases;
  for (const char* field : {"preferred_first_name", "preferred_last_name", "preferred_pronouns", "address2"}) {
    for (const std::string& value : {std::string(), std::string(" "), std::string("x"), Times(100, "\xc3\xa9")}) {
      cases.push_back({field, value, true});
    }
    cases.push_back({field, Times(101, "x"), false});
    cases.push_back({field, Times(101, "\xc3\xa9"), false});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(OptionalText, FieldRule, ::testing::ValuesIn(OptionalTextCases()));

INSTANTIATE_TEST_SUITE_P(PoBox, FieldRule,
                         ::testing::Values(Case{"address1", "PO Box 12", false}, Case{"address2", "P.O. Box 12", false},
                                           Case{"address1", "12 Main St, PO Box 7", false},
                                           Case{"address1", "Box 12", false}, Case{"address2", "Box 12", true},
                                           Case{"address1", "12 Boxwood Lane", true},
                                           Case{"address2", "Boxwood Building", true}, Case{"city", "PO Box 12", true},
                                           Case{"first_name", "PO Box 12", true}));

INSTANTIATE_TEST_SUITE_P(
    PostalCode, FieldRule,
    ::testing::Values(Case{"postal_code", "00501", true}, Case{"postal_code", "94105-1234", true},
                      Case{"postal_code", "", false}, Case{"postal_code", "9410", false},
                      Case{"postal_code", "941056", false}, Case{"postal_code", "94105-", false},
                      Case{"postal_code", "94105-123", false}, Case{"postal_code", "94105-12345", false},
                      Case{"postal_code", "94105 1234", false}, Case{"postal_code", "941051234", false},
                      Case{"postal_code", "94105-123a", false}, Case{"postal_code", "9410a", false},
                      Case{"postal_code", " 94105", false}, Case{"postal_code", "941-5-1234", false}));

INSTANTIATE_TEST_SUITE_P(
    DateOfBirth, FieldRule,
    ::testing::Values(Case{"date_of_birth", "1900-01-01", true}, Case{"date_of_birth", "1899-12-31", false},
                      Case{"date_of_birth", "2025-03-01", true},   // today
                      Case{"date_of_birth", "2025-03-02", false},  // tomorrow
                      Case{"date_of_birth", "2025-02-28", true}, Case{"date_of_birth", "2026-01-01", false},
                      Case{"date_of_birth", "1900-02-28", true},
                      Case{"date_of_birth", "1900-02-29", false},  // a century is no leap year
                      Case{"date_of_birth", "2000-02-29", true},   // but every fourth is
                      Case{"date_of_birth", "2000-02-30", false}, Case{"date_of_birth", "2024-02-29", true},
                      Case{"date_of_birth", "2023-02-29", false}, Case{"date_of_birth", "1999-04-30", true},
                      Case{"date_of_birth", "1999-04-31", false}, Case{"date_of_birth", "1999-12-31", true},
                      Case{"date_of_birth", "1999-12-32", false}, Case{"date_of_birth", "1999-00-10", false},
                      Case{"date_of_birth", "1999-13-10", false}, Case{"date_of_birth", "1999-10-00", false},
                      Case{"date_of_birth", "0000-00-00", false}, Case{"date_of_birth", "9999-12-31", false},
                      Case{"date_of_birth", "", false}, Case{"date_of_birth", "1990-1-10", false},
                      Case{"date_of_birth", "1990-01-1", false}, Case{"date_of_birth", "90-01-01", false},
                      Case{"date_of_birth", "1990/01/01", false}, Case{"date_of_birth", "19900101", false},
                      Case{"date_of_birth", "01-01-1990", false}, Case{"date_of_birth", "1990-01-01 ", false},
                      Case{"date_of_birth", "1990-01-0a", false}, Case{"date_of_birth", "1990-01-+1", false},
                      Case{"date_of_birth", "-990-01-01", false},
                      Case{"date_of_birth", "1990-01-01T00:00:00Z", false}));

INSTANTIATE_TEST_SUITE_P(Ssn, FieldRule,
                         ::testing::Values(Case{"ssn_last_four", "0001", true}, Case{"ssn_last_four", "9999", true},
                                           Case{"ssn_last_four", "0000", false}, Case{"ssn_last_four", "", false},
                                           Case{"ssn_last_four", "123", false}, Case{"ssn_last_four", "12345", false},
                                           Case{"ssn_last_four", "123456789", false},
                                           Case{"ssn_last_four", "123-45-6789", false},
                                           Case{"ssn_last_four", "12a4", false}, Case{"ssn_last_four", " 123", false}));

INSTANTIATE_TEST_SUITE_P(IpAddress, FieldRule,
                         ::testing::Values(Case{"ip_address", "8.8.8.8", true},
                                           Case{"ip_address", "2a00:1450::1", true}, Case{"ip_address", "", false},
                                           Case{"ip_address", "10.1.2.3", false}, Case{"ip_address", "::1", false},
                                           Case{"ip_address", "::ffff:8.8.8.8", false},
                                           Case{"ip_address", "example.com", false},
                                           Case{"ip_address", "8.8.8.8:443", false}));

TEST(Rules, UspsCodes) {
  const std::set<std::string> codes = {"AA", "AE", "AK", "AL", "AP", "AR", "AS", "AZ", "CA", "CO", "CT", "DC", "DE",
                                       "FL", "FM", "GA", "GU", "HI", "IA", "ID", "IL", "IN", "KS", "KY", "LA", "MA",
                                       "MD", "ME", "MH", "MI", "MN", "MO", "MP", "MS", "MT", "NC", "ND", "NE", "NH",
                                       "NJ", "NM", "NV", "NY", "OH", "OK", "OR", "PA", "PR", "PW", "RI", "SC", "SD",
                                       "TN", "TX", "UT", "VA", "VI", "VT", "WA", "WI", "WV", "WY"};
  ASSERT_EQ(codes.size(), 62u);
  for (char a = 'A'; a <= 'Z'; ++a) {
    for (char b = 'A'; b <= 'Z'; ++b) {
      const std::string code{a, b};
      EXPECT_EQ(BrokenFields(With("state", code)).empty(), codes.count(code) == 1) << code;
    }
  }
  for (const char* wrong : {"", "C", "ca", "Ca", "cA", "CAL", "CA ", " CA", "California", "C\xc3", "[A", "C@", "06"}) {
    EXPECT_THAT(BrokenFields(With("state", wrong)), ElementsAre("state")) << wrong;
  }
}

// No control or bidirectional character gets through, in any string field.
TEST(Rules, UnsafeCharactersAreRefusedEverywhere) {
  for (const std::string& unsafe : UnsafeCharacters()) {
    for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
      const auto& field = *Request::descriptor()->field(i);
      if (field.cpp_type() != field.CPPTYPE_STRING) continue;
      const Request request = With(std::string(field.name()), "A" + unsafe + "B");
      EXPECT_THAT(BrokenFields(request), ElementsAre(std::string(field.name()))) << testing::PrintToString(unsafe);
    }
    Request request = ValidRequest();
    (*request.mutable_metadata())["key"] = "a" + unsafe;
    EXPECT_THAT(BrokenFields(request), ElementsAre("metadata")) << testing::PrintToString(unsafe);
    request = ValidRequest();
    (*request.mutable_metadata())["key" + unsafe] = "a";
    EXPECT_THAT(BrokenFields(request), ElementsAre("metadata")) << testing::PrintToString(unsafe);
  }
  // Their neighbours pass: no-break space, per mille, narrow no-break space, U+2065, U+206A, and the plain marks.
  for (const char* safe : {"\xc2\xa0", "\xe2\x80\xb0", "\xe2\x80\xaf", "\xe2\x81\xa5", "\xe2\x81\xaa", "\xe2\x80\x8e",
                           "\xe2\x80\x8f", "\xd8\x9c", "~", " "}) {
    EXPECT_THAT(BrokenFields(With("last_name", std::string("A") + safe)), IsEmpty()) << safe;
  }
}

TEST(Rules, DamagedUtf8IsRefusedEverywhere) {
  for (const std::string& damaged : DamagedUtf8()) {
    for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
      const auto& field = *Request::descriptor()->field(i);
      if (field.cpp_type() != field.CPPTYPE_STRING) continue;
      EXPECT_THAT(BrokenFields(With(std::string(field.name()), "A" + damaged)), ElementsAre(std::string(field.name())));
    }
    Request request = ValidRequest();
    (*request.mutable_metadata())["key"] = damaged;
    EXPECT_THAT(BrokenFields(request), ElementsAre("metadata"));
  }
  for (const char* sound : {"\xc2\xa1", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd",
                            "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_THAT(BrokenFields(With("last_name", std::string("A") + sound)), IsEmpty());
  }
}

TEST(Rules, VerificationTypeDecidesWhatIsRequired) {
  struct Row {
    int type;
    bool delegation;
    std::vector<std::string> broken_without_both;
  };
  const Row rows[] = {
      {v1::VERIFICATION_TYPE_UNSPECIFIED, false, {"date_of_birth", "ssn_last_four"}},
      {v1::VERIFICATION_TYPE_VERIFIED, false, {"date_of_birth", "ssn_last_four"}},
      {v1::VERIFICATION_TYPE_UNVERIFIED, false, {"date_of_birth"}},
      {v1::VERIFICATION_TYPE_RECEIVE_ONLY, false, {}},
      {v1::VERIFICATION_TYPE_UNSPECIFIED, true, {"date_of_birth"}},
      {v1::VERIFICATION_TYPE_VERIFIED, true, {"date_of_birth"}},
      {v1::VERIFICATION_TYPE_UNVERIFIED, true, {"date_of_birth"}},
      {v1::VERIFICATION_TYPE_RECEIVE_ONLY, true, {}},
      {4, false, {"verification_type"}},
      {-1, false, {"verification_type"}},
  };
  for (const Row& row : rows) {
    Request request = ValidRequest();
    request.set_verification_type(static_cast<v1::VerificationType>(row.type));
    const RulesOptions options{.kyc_delegation = row.delegation};
    const bool known = row.type >= 0 && row.type <= 3;
    EXPECT_EQ(BrokenFields(request, options).empty(), known) << row.type;
    request.clear_date_of_birth();
    request.clear_ssn_last_four();
    EXPECT_THAT(BrokenFields(request, options), ElementsAreArray(row.broken_without_both)) << row.type;
    // What is given is checked, required or not.
    request.set_date_of_birth("1990-02-30");
    request.set_ssn_last_four("123456789");
    std::vector<std::string> expected = {"date_of_birth", "ssn_last_four"};
    if (!known) expected.emplace_back("verification_type");
    EXPECT_THAT(BrokenFields(request, options), ElementsAreArray(expected)) << row.type;
  }
}

TEST(Rules, NonPublicAddressesPassWhenAllowed) {
  const RulesOptions allow{.allow_non_public_ip = true};
  for (const char* address : {"10.0.0.1", "127.0.0.1", "::1", "fe80::1", "::ffff:10.0.0.1", "8.8.8.8"}) {
    EXPECT_THAT(BrokenFields(With("ip_address", address), allow), IsEmpty()) << address;
  }
  for (const char* address : {"", "10.0.0", "10.0.0.256", "fe80::1%eth0", "[::1]", "localhost"}) {
    EXPECT_THAT(BrokenFields(With("ip_address", address), allow), ElementsAre("ip_address")) << address;
  }
}

bool MetadataPasses(const std::string& key, const std::string& value) {
  Request request = ValidRequest();
  (*request.mutable_metadata())[key] = value;
  const auto broken = BrokenFields(request);
  if (!broken.empty()) {
    EXPECT_THAT(broken, ElementsAre("metadata"));
  }
  return broken.empty();
}

TEST(Rules, MetadataKeysAndValues) {
  EXPECT_TRUE(MetadataPasses("azAZ09_.-", "v"));
  EXPECT_TRUE(MetadataPasses(Times(64, "k"), "v"));
  EXPECT_FALSE(MetadataPasses(Times(65, "k"), "v"));
  EXPECT_FALSE(MetadataPasses("", "v"));
  for (const char* key : {"a b", "a/b", "a:b", "a@b", "a[b", "a`b", "a{b", "a,b", "\xc3\xa4", "a\n"}) {
    EXPECT_FALSE(MetadataPasses(key, "v")) << key;
  }
  EXPECT_FALSE(MetadataPasses("gateway_attempt_id", "v"));
  EXPECT_TRUE(MetadataPasses("gateway_attempt_id2", "v"));
  EXPECT_TRUE(MetadataPasses("Gateway_attempt_id", "v"));
  EXPECT_FALSE(MetadataPasses("k", ""));
  EXPECT_TRUE(MetadataPasses("k", " "));
  EXPECT_TRUE(MetadataPasses("k", Times(256, "v")));
  EXPECT_TRUE(MetadataPasses("k", Times(256, "\xf0\x9f\x98\x80")));
  EXPECT_FALSE(MetadataPasses("k", Times(257, "v")));
  EXPECT_FALSE(MetadataPasses("k", Times(257, "\xc3\xa9")));
}

TEST(Rules, MetadataHoldsAtMost25Keys) {
  Request request = ValidRequest();
  request.clear_metadata();
  EXPECT_THAT(BrokenFields(request), IsEmpty());
  for (int i = 0; i < 25; ++i) (*request.mutable_metadata())["key" + std::to_string(i)] = "v";
  EXPECT_THAT(BrokenFields(request), IsEmpty());
  (*request.mutable_metadata())["one_more"] = "v";
  EXPECT_THAT(BrokenFields(request), ElementsAre("metadata"));
}

// Breaks every field that has a rule, each with a value that could be recognised in a text.
Request WhollyBroken() {
  Request request;
  int n = 0;
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const auto& field = *Request::descriptor()->field(i);
    if (field.cpp_type() == field.CPPTYPE_STRING && !field.is_repeated()) {
      request.GetReflection()->SetString(&request, &field, "zzq" + std::to_string(++n) + "\x01");
    }
  }
  request.set_verification_type(static_cast<v1::VerificationType>(7654321));
  (*request.mutable_metadata())["zzq key"] = "zzq value";
  return request;
}

TEST(Rules, AllBrokenFieldsAtOnceInFieldOrder) {
  const auto violations = Validate(WhollyBroken(), {}, kToday);
  std::vector<std::string> expected;
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const auto& field = *Request::descriptor()->field(i);
    if (field.cpp_type() != field.CPPTYPE_BOOL) expected.emplace_back(field.name());
  }
  std::vector<std::string> fields;
  size_t size = 0;
  for (const Violation& violation : violations) {
    fields.emplace_back(violation.field);
    size += violation.field.size() + violation.description.size();
    EXPECT_THAT(std::string(violation.description),
                AllOf(Not(IsEmpty()), Not(HasSubstr("zzq")), Not(HasSubstr("7654321"))));
  }
  EXPECT_EQ(expected.size(), 19u);
  EXPECT_EQ(fields, expected);
  // All of them, with their protobuf framing and an ErrorInfo, must fit an error of 4 KiB.
  EXPECT_LT(size, 2200u);
}

TEST(Rules, AnEmptyRequestBreaksWhatIsRequired) {
  EXPECT_THAT(BrokenFields(Request()),
              ElementsAre("request_id", "email", "phone", "first_name", "last_name", "address1", "city", "state",
                          "postal_code", "date_of_birth", "ssn_last_four", "ip_address"));
}

// The texts of one field differ by rule, never by value.
TEST(Rules, TextsAreConstants) {
  const auto text = [](const char* field, const char* value) {
    const auto violations = Validate(With(field, value), {}, kToday);
    return violations.size() == 1 ? violations[0].description.data() : nullptr;
  };
  EXPECT_NE(text("phone", "1"), nullptr);
  EXPECT_EQ(text("phone", "1"), text("phone", "2"));
  EXPECT_EQ(text("ip_address", "10.0.0.1"), text("ip_address", "::1"));
  EXPECT_NE(text("ip_address", "10.0.0.1"), text("ip_address", "nowhere"));
  EXPECT_NE(text("address1", ""), text("address1", "PO Box 7"));
}

TEST(Rules, RequestIdAlone) {
  EXPECT_FALSE(ValidateRequestId(kUuid).has_value());
  for (const std::string& wrong : {std::string(), std::string("zzq"), kUuid + "\n"}) {
    const auto violation = ValidateRequestId(wrong);
    ASSERT_TRUE(violation.has_value());
    EXPECT_EQ(violation->field, "request_id");
    EXPECT_THAT(std::string(violation->description), Not(HasSubstr("zzq")));
  }
}

}  // namespace
}  // namespace userintent::intent
