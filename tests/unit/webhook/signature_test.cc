#include "server/webhook/signature.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/unit/webhook/support.h"

namespace userintent::webhook {
namespace {

const std::string kBody = R"({"a":"b"})";
const std::string kForm = R"({"a": "b"})";

std::vector<Secret> Keys(std::initializer_list<const char*> keys) {
  std::vector<Secret> secrets;
  for (const char* const key : keys) secrets.emplace_back(std::string(key));
  return secrets;
}

TEST(Signature, KnownValue) {
  // RFC 4231, test case 2: 5bdcc146 bf60754e 6a042426 089575c7 5a003f08 9d273983 9dec58b9 64ec3843.
  const std::string header = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=";
  EXPECT_EQ(Sign("what do ya want for nothing?", "Jefe"), header);
  EXPECT_TRUE(FindMatch(header, "what do ya want for nothing?", std::nullopt, Keys({"Jefe"})));
}

TEST(Signature, TellsWhichKeyAndWhichFormMatched) {
  const auto keys = Keys({"one", "two", "three"});
  for (size_t key = 0; key < keys.size(); ++key) {
    for (const Form form : {Form::kRaw, Form::kPython}) {
      const std::string header = Sign(form == Form::kRaw ? kBody : kForm, keys[key].Reveal());
      const std::optional<Match> match = FindMatch(header, kBody, kForm, keys);
      ASSERT_TRUE(match);
      EXPECT_EQ(match->key, key);
      EXPECT_EQ(match->form, form);
    }
  }
}

TEST(Signature, RawComesFirstWhereBothTextsAreEqual) {
  const std::optional<Match> match = FindMatch(Sign(kForm, "k"), kForm, kForm, Keys({"k", "k"}));
  ASSERT_TRUE(match);
  EXPECT_EQ(match->key, 0U);
  EXPECT_EQ(match->form, Form::kRaw);
}

TEST(Signature, RefusesEverythingElse) {
  const auto keys = Keys({"one", "two"});
  const std::string good = Sign(kBody, "one");
  ASSERT_TRUE(FindMatch(good, kBody, kForm, keys));
  EXPECT_FALSE(FindMatch(Sign(kBody, "three"), kBody, kForm, keys));
  EXPECT_FALSE(FindMatch(good, kBody + " ", std::nullopt, keys));
  EXPECT_FALSE(FindMatch(Sign(kForm, "one"), kBody, std::nullopt, keys)) << "no form, no match by it";
  EXPECT_FALSE(FindMatch(good, kBody, kForm, {})) << "without a key";
  EXPECT_FALSE(FindMatch(Sign(kBody, ""), kBody, kForm, Keys({""}))) << "an empty key is none";
  for (size_t i = 0; i < good.size(); ++i) {
    std::string other = good;
    other[i] = other[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(FindMatch(other, kBody, kForm, keys)) << i;
  }
}

TEST(Signature, RefusesOtherWritingsOfTheSameBytes) {
  const auto keys = Keys({"one"});
  const std::string good = Sign(kBody, "one");
  ASSERT_EQ(good.back(), '=');
  std::string spare = good;
  ++spare[good.size() - 2];  // bits that are not of the digest
  for (const std::string& header : {good.substr(0, good.size() - 1), good + "=", good + "\n", " " + good, spare,
                                    std::string(), std::string("="), std::string(good.size(), 'A')}) {
    EXPECT_FALSE(FindMatch(header, kBody, kForm, keys)) << header.size();
  }
}

}  // namespace
}  // namespace userintent::webhook
