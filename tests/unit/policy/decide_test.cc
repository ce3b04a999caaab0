// Policy::Decide and what a shard remembers of it.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/policy/access.h"
#include "server/policy/policy.h"

namespace userintent::policy {
namespace {

const SteadyTime kNow = SteadyTime() + std::chrono::hours(1);

Rule RuleFor(std::string name, std::vector<Method> methods, bool enforce = true) {
  Rule rule;
  rule.name = std::move(name);
  for (const Method method : methods) rule.methods[static_cast<size_t>(method)] = true;
  rule.enforce = enforce;
  return rule;
}

std::string NameOfRule(const Policy& policy, std::string_view caller) {
  const Rule* rule = policy.RuleOf(caller);
  return rule == nullptr ? "" : rule->name;
}

TEST(Methods, HaveNames) {
  for (size_t i = 0; i < kMethodCount; ++i) {
    const auto method = static_cast<Method>(i);
    EXPECT_EQ(MethodOf(NameOf(method)), method);
  }
  EXPECT_EQ(MethodOf("createuserintent"), std::nullopt);
  EXPECT_EQ(MethodOf(""), std::nullopt);
  EXPECT_FALSE(IsRead(Method::kCreateUserIntent));
  EXPECT_TRUE(IsRead(Method::kWatchUserIntents));
}

TEST(CallerName, HasOneFormForEach) {
  EXPECT_EQ(CallerName("spiffe://test.example/a"), "uri:spiffe://test.example/a");
  EXPECT_EQ(CallerName("https://test.example"), "uri:https://test.example");
  EXPECT_EQ(CallerName("urn:test:a"), "uri:urn:test:a");
  EXPECT_EQ(CallerName("signup.test.example"), "dns:signup.test.example");
  EXPECT_EQ(CallerName("local"), "local");
  EXPECT_EQ(CallerName("uri:urn:test:a"), "uri:urn:test:a");
  EXPECT_EQ(CallerName("dns:local"), "dns:local");
  EXPECT_EQ(CallerName("dns:spiffe://test.example/a"), "dns:spiffe://test.example/a");
  EXPECT_EQ(CallerName("localhost"), "dns:localhost");
}

TEST(Decide, AllowsWhatTheRuleLists) {
  const Policy policy({RuleFor("spiffe://test.example/a", {Method::kGetCreation})});
  const Verdict allowed = policy.Decide("uri:spiffe://test.example/a", Method::kGetCreation);
  EXPECT_TRUE(allowed.allowed);
  EXPECT_FALSE(allowed.would_deny);
  EXPECT_EQ(allowed.rule, &policy.rules()[0]);
  const Verdict other = policy.Decide("uri:spiffe://test.example/a", Method::kCreateUserIntent);
  EXPECT_FALSE(other.allowed);
  EXPECT_FALSE(other.would_deny);
  EXPECT_EQ(other.rule, &policy.rules()[0]);
  EXPECT_EQ(policy.Decide("uri:spiffe://test.example/b", Method::kGetCreation), Verdict());
}

TEST(Decide, TryOutPassesAndSaysSo) {
  const Policy policy({RuleFor("spiffe://test.example/a", {Method::kGetCreation}, false)});
  const Verdict listed = policy.Decide("uri:spiffe://test.example/a", Method::kGetCreation);
  EXPECT_TRUE(listed.allowed);
  EXPECT_FALSE(listed.would_deny);
  const Verdict other = policy.Decide("uri:spiffe://test.example/a", Method::kCreateUserIntent);
  EXPECT_TRUE(other.allowed);
  EXPECT_TRUE(other.would_deny);
}

TEST(Decide, TheLongestNameCounts) {
  const Policy policy({RuleFor("spiffe://test.example/*", {}), RuleFor("spiffe://test.example/batch/*", {}),
                       RuleFor("spiffe://test.example/batch/a", {}), RuleFor("spiffe://test.example/batch/a/*", {})});
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example/batch/a"), "spiffe://test.example/batch/a");
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example/batch/a/1/2"), "spiffe://test.example/batch/a/*");
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example/batch/b"), "spiffe://test.example/batch/*");
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example/batch/b/c"), "spiffe://test.example/batch/*");
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example/batch"), "spiffe://test.example/*");
  EXPECT_EQ(NameOfRule(policy, "uri:spiffe://test.example"), "");
}

// What looks like a name of the rule's, and is another one.
TEST(Decide, NothingElsePasses) {
  const Policy policy({RuleFor("spiffe://test.example/batch/*", {}), RuleFor("spiffe://test.example/a", {}),
                       RuleFor("signup.test.example", {})});
  for (const char* caller : {"uri:spiffe://test.example/batch",
                             "uri:spiffe://test.example/batch/",
                             "uri:spiffe://test.example/batch//",
                             "uri:spiffe://test.example/batch//x",
                             "uri:spiffe://test.example/batch/x/",
                             "uri:spiffe://test.example/batchx",
                             "uri:spiffe://test.example/batch/..",
                             "uri:spiffe://test.example/batch/../a",
                             "uri:spiffe://test.example/batch/x/../../a",
                             "uri:spiffe://test.example/batch/.",
                             "uri:spiffe://Test.example/batch/x",
                             "uri:spiffe://test.example/A",
                             "uri:spiffe://test.example/a/",
                             "uri:spiffe://test.example/a/b",
                             "uri:spiffe://other.example/batch/x",
                             "spiffe://test.example/a",
                             "dns:spiffe://test.example/a",
                             "dns:spiffe://test.example/batch/x",
                             "uri:signup.test.example",
                             "dns:x.signup.test.example",
                             "local",
                             "",
                             "uri:",
                             "/",
                             "*",
                             "uri:*",
                             "uri:spiffe://test.example/batch/x/."}) {
    EXPECT_EQ(NameOfRule(policy, caller), "") << caller;
  }
}

// The rule written another way: all rules are tried, each by itself, segment by segment.
std::vector<std::string> SegmentsOf(std::string_view name) {
  std::vector<std::string> segments(1);
  for (const char c : name) {
    if (c == '/') {
      segments.emplace_back();
    } else {
      segments.back() += c;
    }
  }
  return segments;
}

// How many segments of `caller` the rule names; nothing: it does not match. An exact match counts one more than all.
std::optional<size_t> MatchOf(std::string_view rule_name, std::string_view caller) {
  const std::vector<std::string> rule = SegmentsOf(CallerName(rule_name)), name = SegmentsOf(caller);
  if (rule == name) return name.size() + 1;
  if (rule.back() != "*" || name.size() < rule.size()) return std::nullopt;
  if (!std::equal(rule.begin(), rule.end() - 1, name.begin())) return std::nullopt;
  for (size_t i = rule.size() - 1; i < name.size(); ++i) {
    if (name[i].empty() || name[i] == "." || name[i] == "..") return std::nullopt;
  }
  return rule.size() - 1;
}

Verdict BruteForce(const std::vector<Rule>& rules, std::string_view caller, Method method, const Rule** found) {
  size_t best = 0;
  *found = nullptr;
  for (const Rule& rule : rules) {
    const std::optional<size_t> match = MatchOf(rule.name, caller);
    if (match && *match > best) {
      best = *match;
      *found = &rule;
    }
  }
  if (*found == nullptr) return {};
  for (size_t i = 0; i < kMethodCount; ++i) {
    if (static_cast<Method>(i) == method && (*found)->methods[i]) return {.allowed = true, .rule = *found};
  }
  if ((*found)->enforce) return {.rule = *found};
  return {.allowed = true, .would_deny = true, .rule = *found};
}

// Names out of few segments, so that many match, and some by two rules.
std::string RandomName(std::mt19937& random, bool wildcard) {
  static constexpr const char* kRoots[] = {"spiffe://a", "spiffe://a",   "spiffe://a",
                                           "spiffe://b", "spiffe://a.b", "https://a"};
  static constexpr const char* kSegments[] = {"x", "y", "xx", "x", "y", "", ".", "..", "X"};
  std::string name = kRoots[random() % std::size(kRoots)];
  const size_t count = random() % 5;
  for (size_t i = 0; i < count; ++i) {
    name += '/';
    name += kSegments[random() % (wildcard ? 5 : std::size(kSegments))];
  }
  if (wildcard) name += "/*";
  return name;
}

TEST(Decide, AgreesWithBruteForce) {
  std::mt19937 random(20240501);
  size_t allowed = 0, by_wildcard = 0, would_deny = 0, several = 0;
  constexpr int kPolicies = 2000, kCallers = 60;
  for (int p = 0; p < kPolicies; ++p) {
    std::vector<Rule> rules;
    const size_t count = random() % 40;
    for (size_t i = 0; i < count; ++i) {
      Rule rule = RuleFor(RandomName(random, random() % 2 == 0), {}, random() % 4 != 0);
      for (bool& listed : rule.methods) listed = random() % 2 == 0;
      const bool known = std::ranges::any_of(rules, [&](const Rule& other) { return other.name == rule.name; });
      if (!known) rules.push_back(std::move(rule));
    }
    const Policy policy(rules);
    for (int c = 0; c < kCallers; ++c) {
      std::string caller = "uri:" + RandomName(random, false);
      if (random() % 10 == 0) caller.replace(0, 3, "dns");
      const auto method = static_cast<Method>(random() % kMethodCount);
      const Rule* found = nullptr;
      const Verdict expected = BruteForce(policy.rules(), caller, method, &found);
      const Verdict got = policy.Decide(caller, method);
      ASSERT_EQ(got, expected) << caller << " " << NameOf(method);
      if (got.allowed) ++allowed;
      if (got.would_deny) ++would_deny;
      if (found != nullptr && found->name.ends_with("/*")) ++by_wildcard;
      const auto matching =
          std::ranges::count_if(rules, [&](const Rule& rule) { return MatchOf(rule.name, caller).has_value(); });
      if (matching > 1) ++several;
    }
  }
  // The cases are worth something: each kind comes often.
  EXPECT_GT(allowed, 5000u);
  EXPECT_GT(would_deny, 1000u);
  EXPECT_GT(by_wildcard, 5000u);
  EXPECT_GT(several, 1000u);
}

TEST(Access, WithoutAFileEverythingIsAllowed) {
  Gatekeeper keeper;
  Gate gate(keeper);
  const auto access = gate.Admit("uri:spiffe://test.example/a", Method::kGetCreation, kNow).access;
  EXPECT_EQ(access->policy, nullptr);
  EXPECT_EQ(access->rule, nullptr);
  EXPECT_NE(access->account, nullptr);  // some limits need no file
  for (size_t i = 0; i < kMethodCount; ++i) {
    const Verdict verdict = access->Decide(static_cast<Method>(i));
    EXPECT_TRUE(verdict.allowed);
    EXPECT_FALSE(verdict.would_deny);
  }
}

TEST(Gate, AsksAgainWhenThePolicyChanged) {
  Gatekeeper keeper;
  Gate gate(keeper);
  const std::string caller = "uri:spiffe://test.example/a";
  const auto before = gate.Admit(caller, Method::kGetCreation, kNow).access;
  EXPECT_EQ(gate.Admit(caller, Method::kGetCreation, kNow).access, before);  // remembered
  keeper.Install(std::make_shared<const Policy>(std::vector{RuleFor("spiffe://test.example/b", {})}));
  const auto after = gate.Admit(caller, Method::kGetCreation, kNow).access;
  EXPECT_TRUE(before->Decide(Method::kGetCreation).allowed);  // whoever holds the older one goes on with it
  EXPECT_FALSE(after->Decide(Method::kGetCreation).allowed);
  EXPECT_EQ(gate.Admit(caller, Method::kGetCreation, kNow).access, after);
}

TEST(Gate, RemembersABoundedNumberOfCallers) {
  Gatekeeper keeper;
  Gate gate(keeper);
  size_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    gate.Admit("dns:caller" + std::to_string(i) + ".example", Method::kGetCreation, kNow);
    most = std::max(most, gate.size());
  }
  EXPECT_EQ(most, 1000u);
}

TEST(Gate, OneLineForManyDenialsOfACallerAndMethod) {
  using std::chrono::seconds;
  Gatekeeper keeper;
  keeper.Install(std::make_shared<const Policy>(std::vector{RuleFor("a.example", {Method::kGetUserIntent}),
                                                            RuleFor("b.example", {Method::kGetUserIntent}, false)}));
  Gate gate(keeper);
  const auto line = [&](const char* caller, Method method, SteadyTime now) {
    return gate.Admit(caller, method, now).line;
  };
  EXPECT_EQ(line("dns:a.example", Method::kGetUserIntent, kNow), std::nullopt);  // allowed
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow), 0u);
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow), std::nullopt);
  EXPECT_EQ(line("dns:a.example", Method::kCreateUserIntent, kNow), 0u);  // another method
  EXPECT_EQ(line("dns:b.example", Method::kGetCreation, kNow), 0u);       // another caller, of a rule that is tried out
  EXPECT_EQ(line("dns:nobody.example", Method::kGetCreation, kNow), 0u);
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow + seconds(9)), std::nullopt);
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow + seconds(10)), 2u);
  // Another policy does not start the count anew.
  keeper.Install(std::make_shared<const Policy>(std::vector<Rule>()));
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow + seconds(11)), std::nullopt);
  EXPECT_EQ(line("dns:a.example", Method::kGetCreation, kNow + seconds(20)), 1u);
}

TEST(Gate, LinesOfAllCallersAreFew) {
  Gatekeeper keeper;
  keeper.Install(std::make_shared<const Policy>(std::vector<Rule>()));
  Gate one(keeper), other(keeper);
  const auto lines = [&](SteadyTime now, int from) {
    int written = 0;
    for (int i = from; i < from + 400; ++i) {
      Gate& gate = i % 2 == 0 ? one : other;
      if (gate.Admit("dns:" + std::to_string(i) + ".example", Method::kGetCreation, now).line) ++written;
    }
    return written;
  };
  EXPECT_EQ(lines(kNow, 0), 20);
  EXPECT_EQ(lines(kNow, 400), 0);
  EXPECT_EQ(lines(kNow + std::chrono::milliseconds(100), 400), 2);
  EXPECT_EQ(lines(kNow + std::chrono::hours(1), 400), 20);
}

}  // namespace
}  // namespace userintent::policy
