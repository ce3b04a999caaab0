// The text of a policy file: which ones are taken, what they mean, and what is said of the others.

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "server/policy/policy.h"

namespace userintent::policy {
namespace {

std::string File(std::string_view callers) { return R"({"version": 1, "callers": [)" + std::string(callers) + "]}"; }

// A rule with more members.
std::string RuleWith(std::string_view members) {
  return File(R"({"name": "spiffe://test.example/a", "methods": [], )" + std::string(members) + "}");
}

std::string Named(std::string_view name) { return File(R"({"name": ")" + std::string(name) + R"(", "methods": []})"); }

std::string ErrorOf(std::string_view text) {
  const absl::StatusOr<Policy> policy = Policy::Parse(text);
  return policy.ok() ? "" : std::string(policy.status().message());
}

TEST(Parse, TheContractsExample) {
  const absl::StatusOr<Policy> policy = Policy::Parse(R"({"version": 1,
     "callers": [
       {"name": "spiffe://corp.example/signup", "methods": ["CreateUserIntent", "GetCreation", "GetUserIntent",
        "WatchUserIntents", "GetAuthorizationUrl"],
        "create_rate": {"per_second": 20, "burst": 40}, "read_rate": {"per_second": 50, "burst": 100},
        "max_in_flight": 200, "redirect_uris": ["https://app.corp.example/astra/done"]},
       {"name": "spiffe://corp.example/batch/*", "methods": ["GetCreation"], "enforce": false}]})");
  ASSERT_TRUE(policy.ok()) << policy.status();
  ASSERT_EQ(policy->rules().size(), 2u);
  const Rule& signup = policy->rules()[0];
  EXPECT_EQ(signup.name, "spiffe://corp.example/signup");
  for (const bool listed : signup.methods) EXPECT_TRUE(listed);
  EXPECT_EQ(signup.create_rate, (Rate{20, 40}));
  EXPECT_EQ(signup.read_rate, (Rate{50, 100}));
  EXPECT_EQ(signup.probe_rate, std::nullopt);
  EXPECT_EQ(signup.max_in_flight, 200);
  EXPECT_EQ(signup.redirect_uris, std::vector<std::string>{"https://app.corp.example/astra/done"});
  EXPECT_FALSE(signup.may_supersede_others);
  EXPECT_TRUE(signup.enforce);
  const Rule& batch = policy->rules()[1];
  EXPECT_TRUE(batch.Lists(Method::kGetCreation));
  EXPECT_FALSE(batch.Lists(Method::kCreateUserIntent));
  EXPECT_EQ(batch.max_in_flight, std::nullopt);
  EXPECT_FALSE(batch.enforce);
}

TEST(Parse, EveryMember) {
  const absl::StatusOr<Policy> policy = Policy::Parse(RuleWith(
      R"("create_rate": {"burst": 1, "per_second": 0.5}, "read_rate": {"per_second": 100000, "burst": 1000000},
         "probe_rate": {"per_second": 1e-3, "burst": 2}, "max_in_flight": 1000000, "may_supersede_others": true,
         "redirect_uris": ["http://127.0.0.1:8080/x", "https://test.example?a=b"], "enforce": true)"));
  ASSERT_TRUE(policy.ok()) << policy.status();
  const Rule& rule = policy->rules()[0];
  EXPECT_EQ(rule.create_rate, (Rate{0.5, 1}));
  EXPECT_EQ(rule.read_rate, (Rate{100000, 1000000}));
  EXPECT_EQ(rule.probe_rate, (Rate{0.001, 2}));
  EXPECT_EQ(rule.max_in_flight, 1000000);
  EXPECT_EQ(rule.redirect_uris.size(), 2u);
  EXPECT_TRUE(rule.may_supersede_others);
}

TEST(Parse, GoodFiles) {
  const std::string good[] = {
      Named("spiffe://test.example/a"),
      Named("spiffe://test.example/a/b/c"),
      Named("spiffe://test.example/*"),
      Named("spiffe://test.example/a/*"),
      Named("spiffe://test.example"),
      Named("https://test.example/"),
      Named("https://test.example//a"),
      Named("signup.test.example"),
      Named("local"),
      Named("localhost"),
      Named("uri:urn:test:a"),
      Named("uri:spiffe://test.example/*"),
      Named("dns:signup.test.example"),
      Named("dns:local"),
      Named("a"),
      Named(std::string(512, 'a')),
      Named(R"(spiffe:\/\/test.example\/a)"),         // escaped
      Named(R"(\u0073piffe://test.example/\u002a)"),  // the same as .../*
      "\xef\xbb\xbf" + Named("local"),                // a byte order mark
      "\n\t" + Named("local") + "\r\n",
      File(R"({"name": "a", "methods": []}, {"name": "b", "methods": []})"),
      // Not the same caller: a DNS name, a URI, the word.
      File(R"({"name": "local", "methods": []}, {"name": "dns:local", "methods": []},
              {"name": "uri:local", "methods": []})"),
      // An exact name and a wildcard of the same letters.
      File(R"({"name": "spiffe://a/b", "methods": []}, {"name": "spiffe://a/b/*", "methods": []},
              {"name": "spiffe://a/*", "methods": []})"),
      File(R"({"methods": ["WatchUserIntents"], "name": "a"})"),
      R"({"callers": [{"name": "a", "methods": []}], "version": 1})",
      RuleWith(R"("redirect_uris": [])"),
      RuleWith(R"("max_in_flight": 1)"),
  };
  for (const std::string& text : good) EXPECT_EQ(ErrorOf(text), "") << text;
}

struct Bad {
  std::string text;
  std::string place;  // what the error begins with, and a word that it holds
  std::string word;
};

std::vector<Bad> BadFiles() {
  const std::string name = "callers[0].name: ", rule = "callers[0]: ";
  return {
      // The form.
      {"", "is empty", "version"},
      {" \n", "is empty", "version"},
      {"{", "is not JSON at line 1, column 2", ""},
      {"[", "is not JSON", ""},
      {"nonsense", "is not JSON at line 1", ""},
      {R"({"version": 1,)", "is not JSON", ""},
      {"{\"version\": 1,\n \"callers\": [}", "is not JSON at line 2, column 14", ""},
      {R"({"version": 1, "callers": [],})", "is not JSON", ""},
      {R"({'version': 1})", "is not JSON", ""},
      {"{\"version\": 1 /* one */}", "is not JSON", ""},
      {"{\"version\": 1e999}", "is not JSON", ""},
      {"{\"version\": 01}", "is not JSON", ""},
      {Named("a") + "{}", "is not JSON", ""},
      {Named("a") + " x", "is not JSON", ""},
      {Named("a") + std::string(1, '\0'), "holds a zero byte", ""},
      {Named("a") + std::string("\0 {", 3), "holds a zero byte", ""},
      {Named("\xff"), "is not JSON", ""},
      {Named("\xc3\x28"), "is not JSON", ""},
      {Named("\n"), "is not JSON", ""},
      {std::string(100'000, '['), "[0][0][0][0][0][0][0][0]: is nested too deep", ""},
      {R"({"callers": [[[[[[[[[[]]]]]]]]]]})", "callers[0][0][0][0][0][0][0]: is nested too deep", ""},
      // The whole.
      {"[]", "must be an object", "version"},
      {"null", "must be an object", ""},
      {"1", "must be an object", ""},
      {"{}", "version: must be 1", ""},
      {R"({"callers": []})", "version: must be 1", ""},
      {R"({"version": 2, "callers": []})", "version: must be 1", ""},
      {R"({"version": 0, "callers": []})", "version: must be 1", ""},
      {R"({"version": -1, "callers": []})", "version: must be 1", ""},
      {R"({"version": 1.0, "callers": []})", "version: must be 1", ""},
      {R"({"version": "1", "callers": []})", "version: must be 1", ""},
      {R"({"version": true, "callers": []})", "version: must be 1", ""},
      {R"({"version": 1})", "callers: required", ""},
      {R"({"version": 1, "callers": {}})", "callers: required", ""},
      {R"({"version": 1, "callers": null})", "callers: required", ""},
      {R"({"version": 1, "callers": []})", "callers: is empty", "--policy_file"},
      {R"({"version": 1, "callers": [], "default": "allow"})", R"(a member "default" is unknown)", ""},
      {R"({"version": 1, "Callers": []})", R"(a member "Callers" is unknown)", ""},
      {R"({"version": 1, "version": 1, "callers": []})", R"(the member "version" stands there twice)", ""},
      {R"({"version": 1, "callers": [], "callers": []})", R"(the member "callers" stands there twice)", ""},
      // A rule.
      {File("1"), "callers[0]: must be an object", ""},
      {File("[]"), "callers[0]: must be an object", ""},
      {File("{}"), "callers[0].name: required", ""},
      {File(R"({"name": "a"})"), "callers[0].methods: required", ""},
      {File(R"({"methods": []})"), "callers[0].name: required", ""},
      {File(R"({"name": 1, "methods": []})"), "callers[0].name: required", ""},
      {File(R"({"name": ["a"], "methods": []})"), "callers[0].name: required", ""},
      {RuleWith(R"("method": [])"), rule, R"("method" is unknown)"},
      {RuleWith(R"("may_resolve": true)"), rule, R"("may_resolve" is unknown)"},
      {RuleWith(R"("Enforce": false)"), rule, R"("Enforce" is unknown)"},
      {RuleWith(R"("": 1)"), rule, "with an odd name is unknown"},
      {RuleWith(R"("name": "b")"), rule, R"("name" stands there twice)"},
      {RuleWith(R"("enforce": true, "enforce": false)"), rule, R"("enforce" stands there twice)"},
      {RuleWith(R"("enforce": true, "\u0065nforce": false)"), rule, R"("enforce" stands there twice)"},
      {RuleWith(R"("read_rate": {"burst": 1, "burst": 2, "per_second": 1})"), "callers[0].read_rate: ", "twice"},
      // Names.
      {Named(""), name, "1 to 512 visible"},
      {Named(std::string(513, 'a')), name, "1 to 512 visible"},
      {Named("a b"), name, "visible"},
      {Named("a\\u0000"), name, "visible"},
      {Named("\xc3\xa4"), name, "visible"},
      {Named("uri:"), name, "nobody"},
      {Named("dns:"), name, "nobody"},
      {Named("*"), name, "last character, after a /"},
      {Named("/*"), name, "URI with a host"},
      {Named("uri:*"), name, "last character, after a /"},
      {Named("uri:/*"), name, "URI with a host"},
      {Named("spiffe://*"), name, "URI with a host"},
      {Named("spiffe:///*"), name, "URI with a host"},
      {Named("spiffe://test.example*"), name, "last character, after a /"},
      {Named("spiffe://test.example/a*"), name, "last character, after a /"},
      {Named("spiffe://test.example/*/a"), name, "last character, after a /"},
      {Named("spiffe://*/a"), name, "last character, after a /"},
      {Named("spiffe://test.example/*/*"), name, "last character, after a /"},
      {Named("spiffe://test.example/**"), name, "last character, after a /"},
      {Named("*.test.example"), name, "last character, after a /"},
      {Named("test.example/*"), name, "URI with a host"},
      {Named("dns:spiffe://test.example/*"), name, "URI with a host"},
      {Named("spiffe://test.example//*"), name, "empty segments"},
      {Named("spiffe://test.example/../*"), name, "URI with a host"},
      {Named("spiffe://test.example/./*"), name, "URI with a host"},
      {File(R"({"name": "a", "methods": []}, {"name": "b", "methods": []}, {"name": "a", "methods": []})"),
       "callers[2].name: ", "callers[0]"},
      {File(R"({"name": "a", "methods": []}, {"name": "dns:a", "methods": []})"), "callers[1].name: ", "callers[0]"},
      {File(R"({"name": "a://b/*", "methods": []}, {"name": "uri:a://b/*", "methods": []})"),
       "callers[1].name: ", "callers[0]"},
      // Methods.
      {File(R"({"name": "a", "methods": "GetCreation"})"), "callers[0].methods: ", "list"},
      {File(R"({"name": "a", "methods": null})"), "callers[0].methods: ", "list"},
      {File(R"({"name": "a", "methods": ["GetCreation", "*"]})"), "callers[0].methods[1]: is no method",
       "GetUserIntent"},
      {File(R"({"name": "a", "methods": ["getCreation"]})"), "callers[0].methods[0]: is no method", ""},
      {File(R"({"name": "a", "methods": ["Check"]})"), "callers[0].methods[0]: is no method", ""},
      {File(R"({"name": "a", "methods": [1]})"), "callers[0].methods[0]: is no method", ""},
      {File(R"({"name": "a", "methods": ["GetCreation", "GetCreation"]})"), "callers[0].methods[1]: ", "already"},
      // Numbers.
      {RuleWith(R"("create_rate": 5)"), "callers[0].create_rate: ", "per_second"},
      {RuleWith(R"("create_rate": {})"), "callers[0].create_rate: ", "per_second"},
      {RuleWith(R"("create_rate": {"per_second": 1})"), "callers[0].create_rate: ", "burst"},
      {RuleWith(R"("create_rate": {"per_second": 1, "burst": 1, "period": 1})"), "callers[0].create_rate: ", "else"},
      {RuleWith(R"("create_rate": {"per_second": 0, "burst": 1})"), "callers[0].create_rate.per_second: ", "0.001"},
      {RuleWith(R"("create_rate": {"per_second": -1, "burst": 1})"), "callers[0].create_rate.per_second: ", "0.001"},
      {RuleWith(R"("create_rate": {"per_second": 1e-300, "burst": 1})"), "callers[0].create_rate.per_second: ", ""},
      {RuleWith(R"("create_rate": {"per_second": 100000.1, "burst": 1})"), "callers[0].create_rate.per_second: ", ""},
      {RuleWith(R"("create_rate": {"per_second": "1", "burst": 1})"), "callers[0].create_rate.per_second: ", ""},
      {RuleWith(R"("create_rate": {"per_second": true, "burst": 1})"), "callers[0].create_rate.per_second: ", ""},
      {RuleWith(R"("read_rate": {"per_second": 1, "burst": 0})"), "callers[0].read_rate.burst: ", "whole"},
      {RuleWith(R"("read_rate": {"per_second": 1, "burst": 1.5})"), "callers[0].read_rate.burst: ", "whole"},
      {RuleWith(R"("probe_rate": {"per_second": 1, "burst": 1000001})"), "callers[0].probe_rate.burst: ", "1000000"},
      {RuleWith(R"("max_in_flight": 0)"), "callers[0].max_in_flight: ", "1 to 1000000"},
      {RuleWith(R"("max_in_flight": -5)"), "callers[0].max_in_flight: ", "whole"},
      {RuleWith(R"("max_in_flight": 1000001)"), "callers[0].max_in_flight: ", ""},
      {RuleWith(R"("max_in_flight": 18446744073709551617)"), "callers[0].max_in_flight: ", ""},
      {RuleWith(R"("max_in_flight": 4294967297)"), "callers[0].max_in_flight: ", ""},
      {RuleWith(R"("max_in_flight": "5")"), "callers[0].max_in_flight: ", ""},
      // The others.
      {RuleWith(R"("enforce": "false")"), "callers[0].enforce: ", "true or false"},
      {RuleWith(R"("enforce": 0)"), "callers[0].enforce: ", "true or false"},
      {RuleWith(R"("may_supersede_others": null)"), "callers[0].may_supersede_others: ", "true or false"},
      {RuleWith(R"("redirect_uris": "https://test.example")"), "callers[0].redirect_uris: ", "list"},
      {RuleWith(R"("redirect_uris": ["http://test.example"])"), "callers[0].redirect_uris[0]: ", "https"},
      {RuleWith(R"("redirect_uris": ["https://test.example/#a"])"), "callers[0].redirect_uris[0]: ", "fragment"},
      {RuleWith(R"("redirect_uris": ["https://a@test.example"])"), "callers[0].redirect_uris[0]: ", "user"},
      {RuleWith(R"("redirect_uris": ["https://test.example/*", "javascript:1"])"), "callers[0].redirect_uris[1]: ", ""},
      {RuleWith(R"("redirect_uris": [7])"), "callers[0].redirect_uris[0]: ", ""},
      {RuleWith(R"("redirect_uris": ["https://a.example", "https://a.example"])"),
       "callers[0].redirect_uris[1]: ", "already"},
  };
}

TEST(Parse, BadFiles) {
  for (const Bad& bad : BadFiles()) {
    const std::string error = ErrorOf(bad.text);
    EXPECT_NE(error, "") << bad.text.substr(0, 200);
    EXPECT_EQ(error.substr(0, bad.place.size()), bad.place) << bad.text.substr(0, 200);
    EXPECT_NE(error.find(bad.word), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

// Somebody may have named the file of a secret, or a secret may stand where it does not belong.
TEST(Parse, ErrorsHoldNoContent) {
  const std::string secret = "S3cr3t-value/42";
  const std::string member = "\"" + secret + "\": 1";
  const std::string twice = member + ", " + member;
  for (const std::string& text :
       {secret, "\"" + secret + "\"", "{\"" + secret + "\": 1}", "[\"" + secret + "\"]",
        "{\"version\": \"" + secret + "\"}", Named(secret + " "), Named("*" + secret), RuleWith(member),
        RuleWith(twice), RuleWith("\"" + secret + "\": {\"a\": 1, \"a\": 2}"),
        RuleWith("\"redirect_uris\": [\"" + secret + "\"]"), RuleWith("\"create_rate\": \"" + secret + "\""),
        File("{\"name\": \"a\", \"methods\": [\"" + secret + "\"]}"), Named(secret) + secret}) {
    const std::string error = ErrorOf(text);
    EXPECT_NE(error, "") << text;
    EXPECT_EQ(error.find(secret), std::string::npos) << error;
  }
}

// What is cut, doubled, or changed in one byte is refused or understood, and nothing else happens.
TEST(Parse, Garbage) {
  const std::string good = RuleWith(
      R"("create_rate": {"burst": 1, "per_second": 0.5}, "max_in_flight": 7, "redirect_uris": ["https://t.example/a"])");
  ASSERT_EQ(ErrorOf(good), "");
  for (size_t size = 0; size < good.size(); ++size) EXPECT_NE(ErrorOf(good.substr(0, size)), "") << size;
  std::mt19937 random(20240502);
  size_t taken = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = good;
    const size_t changes = 1 + random() % 4;
    for (size_t i = 0; i < changes; ++i) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 8);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 20));
          break;
        default:
          text.insert(at, 1, R"({}[]",:*/\0)"[random() % 11]);
      }
      if (text.empty()) text = " ";
    }
    const absl::StatusOr<Policy> policy = Policy::Parse(text);
    if (policy.ok()) {
      ++taken;
      ASSERT_EQ(policy->rules().size(), 1u);
    } else {
      ASSERT_FALSE(policy.status().message().empty());
    }
  }
  EXPECT_LT(taken, 10'000u);
}

// The largest files that may be read, made to be slow: all must be judged, and the good one understood.
TEST(Parse, LargeFiles) {
  constexpr size_t kLargest = 1 << 20;
  std::string rules;
  size_t count = 0;
  while (rules.size() < kLargest - 200) {
    if (count > 0) rules += ',';
    rules += R"({"name": "spiffe://t.example/)" + std::to_string(count++) + R"(", "methods": ["GetCreation"]})";
  }
  const absl::StatusOr<Policy> policy = Policy::Parse(File(rules));
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->rules().size(), count);
  EXPECT_TRUE(policy->Decide("uri:spiffe://t.example/77", Method::kGetCreation).allowed);
  std::string uris;
  for (size_t i = 0; uris.size() < kLargest - 200; ++i) {
    uris += (i > 0 ? ", \"https://t.example/" : "\"https://t.example/") + std::to_string(i) + '"';
  }
  EXPECT_EQ(ErrorOf(RuleWith("\"redirect_uris\": [" + uris + "]")), "");
}

}  // namespace
}  // namespace userintent::policy
