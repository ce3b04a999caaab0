// --check_policy: the answer's text and verdict, what is wrong with a question, and that nothing else is needed.

#include "server/config/check_policy.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "server/config/load.h"

namespace userintent::config {
namespace {

constexpr char kFile[] = R"({"version": 1, "callers": [
    {"name": "spiffe://test.example/signup", "methods": ["CreateUserIntent"],
     "create_rate": {"per_second": 0.5, "burst": 40}, "read_rate": {"per_second": 50, "burst": 100},
     "probe_rate": {"per_second": 1, "burst": 2}, "max_in_flight": 200, "may_supersede_others": true},
    {"name": "spiffe://test.example/*", "methods": ["GetCreation"], "enforce": false},
    {"name": "uri:https://test.example/a,b", "methods": ["GetCreation"]},
    {"name": "support.test.example", "methods": ["GetCreation"]}]})";

std::string Ask(const std::string& question) {
  const absl::StatusOr<policy::Policy> policy = policy::Policy::Parse(kFile);
  EXPECT_TRUE(policy.ok()) << policy.status();
  const absl::StatusOr<PolicyAnswer> answer = CheckPolicy(*policy, question);
  if (!answer.ok()) return std::string(answer.status().message());
  EXPECT_EQ(answer->allowed, answer->text.starts_with("allowed: ")) << answer->text;
  EXPECT_EQ(answer->text.find('\n'), std::string::npos);
  return answer->text;
}

TEST(CheckPolicy, SaysTheVerdictAndTheRule) {
  EXPECT_EQ(Ask("spiffe://test.example/signup,CreateUserIntent"),
            "allowed: rule \"spiffe://test.example/signup\", create_rate 0.5/s burst 40, read_rate 50/s burst 100, "
            "probe_rate 1/s burst 2, max_in_flight 200, may_supersede_others");
  EXPECT_EQ(Ask("uri:spiffe://test.example/signup,GetCreation"),
            "denied: rule \"spiffe://test.example/signup\" does not list GetCreation");
  EXPECT_EQ(Ask("spiffe://test.example/other,GetCreation"),
            "allowed: rule \"spiffe://test.example/*\", enforce false: nothing is refused, only counted");
  EXPECT_EQ(Ask("spiffe://test.example/other,WatchUserIntents"),
            "allowed: rule \"spiffe://test.example/*\" does not list WatchUserIntents, enforce false: nothing is "
            "refused, only counted");
  EXPECT_EQ(Ask("https://test.example/a,b,GetCreation"), "allowed: rule \"uri:https://test.example/a,b\"");
  EXPECT_EQ(Ask("dns:support.test.example,GetCreation"), "allowed: rule \"support.test.example\"");
  for (const char* nobody :
       {"local,GetCreation", "spiffe://test.example,GetCreation", "uri:support.test.example,GetCreation",
        "dns:spiffe://test.example/signup,CreateUserIntent"}) {
    EXPECT_EQ(Ask(nobody), "denied: no rule names the caller") << nobody;
  }
}

TEST(CheckPolicy, SaysWhatIsWrongWithAQuestion) {
  for (const char* question : {"", ",", ",GetCreation", "local", "GetCreation"}) {
    EXPECT_EQ(Ask(question),
              "--check_policy: must be CALLER,METHOD, for example spiffe://trust.example/signup,GetCreation");
  }
  for (const char* question : {"local,", "local,getcreation", "local,GetCreation,", "local, GetCreation"}) {
    EXPECT_EQ(Ask(question),
              "--check_policy: the word after the last comma is no method; there are CreateUserIntent, GetCreation, "
              "GetUserIntent, GetAuthorizationUrl, WatchUserIntents")
        << question;
  }
}

TEST(CheckPolicy, NeedsThePolicyFileAlone) {
  const auto load = [](std::initializer_list<const char*> arguments) {
    std::vector<const char*> words = {"userintent-server"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const char* const environment[] = {nullptr};
    return Load(static_cast<int>(words.size()), words.data(), environment);
  };
  EXPECT_EQ(load({"--check_policy=local,GetCreation"}).status().message(), "--policy_file: --check_policy needs it");
  EXPECT_EQ(load({"--check_policy"}).status().message(), "--check_policy: needs a value");
  EXPECT_EQ(load({"--check_policy=a,b", "--policy_file=/nonexistent"}).status().message(),
            "--policy_file: cannot open the file: No such file or directory");
  EXPECT_EQ(load({"--check_policy=a,b", "--healthcheck"}).status().message(),
            "--healthcheck: contradicts the other flag that says what to do");
}

}  // namespace
}  // namespace userintent::config
