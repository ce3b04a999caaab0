// A policy file -> Policy::Parse -> Decide. Lines up to an empty one are callers by their internal names; the rest is
// the file.
//
// The oracle: what was read is within its ranges, and is read again from a file that is written from it; a decision is
// what a walk over all rules says, in any order of the rules; an error is one line without control characters.
#include <optional>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/base/text.h"
#include "server/net/redirect_uri.h"
#include "server/policy/policy.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using nlohmann::json;
using policy::CallerName;
using policy::kMethodCount;
using policy::kMethodNames;
using policy::Method;
using policy::Policy;
using policy::Rate;
using policy::Rule;

// ---- what a decision should be

// How many bytes of the caller's name the rule names: all of them and one more where it is the exact name. Nothing: the
// rule is not about this caller.
std::optional<size_t> Fit(const Rule& rule, std::string_view caller) {
  const std::string name = CallerName(rule.name);
  if (!name.ends_with("/*")) return name == caller ? std::optional(caller.size() + 1) : std::nullopt;
  const std::string_view prefix = std::string_view(name).substr(0, name.size() - 1);  // with the slash
  if (!caller.starts_with(prefix)) return std::nullopt;
  Input rest(caller.substr(prefix.size()));
  std::string_view last;
  do {
    last = rest.Until('/');
    if (last.empty() || last == "." || last == "..") return std::nullopt;
  } while (!rest.empty());
  if (caller.ends_with('/')) return std::nullopt;
  return prefix.size();
}

const Rule* Best(const std::vector<Rule>& rules, std::string_view caller) {
  const Rule* best = nullptr;
  for (const Rule& rule : rules) {
    const std::optional<size_t> fit = Fit(rule, caller);
    if (fit && (best == nullptr || *fit > *Fit(*best, caller))) best = &rule;
  }
  return best;
}

void CheckDecisions(const Policy& policy, const Policy& reversed, const std::string& caller) {
  const Rule* const best = Best(policy.rules(), caller);
  for (size_t i = 0; i < kMethodCount; ++i) {
    const auto method = static_cast<Method>(i);
    const policy::Verdict verdict = Timed([&] { return policy.Decide(caller, method); });
    Check(verdict.rule == best, "the rule that counts is the exact one, or the longest");
    const bool listed = best != nullptr && best->methods[i];
    Check(verdict.allowed == (best != nullptr && (listed || !best->enforce)), "what no rule allows is denied");
    Check(verdict.would_deny == (best != nullptr && !listed && !best->enforce), "what is only tried out passes");
    const policy::Verdict other = reversed.Decide(caller, method);
    Check(other.allowed == verdict.allowed && (other.rule == nullptr) == (best == nullptr),
          "the order is of no account");
  }
}

// ---- what was read

json Written(const Rate& rate) { return {{"per_second", rate.per_second}, {"burst", rate.burst}}; }

json Written(const Rule& rule) {
  json written = {{"name", rule.name},
                  {"methods", json::array()},
                  {"redirect_uris", rule.redirect_uris},
                  {"may_supersede_others", rule.may_supersede_others},
                  {"enforce", rule.enforce}};
  for (size_t i = 0; i < kMethodCount; ++i) {
    if (rule.methods[i]) written["methods"].push_back(std::string(kMethodNames[i]));
  }
  if (rule.create_rate) written["create_rate"] = Written(*rule.create_rate);
  if (rule.read_rate) written["read_rate"] = Written(*rule.read_rate);
  if (rule.probe_rate) written["probe_rate"] = Written(*rule.probe_rate);
  if (rule.max_in_flight) written["max_in_flight"] = *rule.max_in_flight;
  return written;
}

bool Same(const Rule& a, const Rule& b) {
  return a.name == b.name && a.methods == b.methods && a.create_rate == b.create_rate && a.read_rate == b.read_rate &&
         a.probe_rate == b.probe_rate && a.max_in_flight == b.max_in_flight && a.redirect_uris == b.redirect_uris &&
         a.may_supersede_others == b.may_supersede_others && a.enforce == b.enforce;
}

void CheckRule(const Rule& rule) {
  Check(!rule.name.empty() && rule.name.size() <= 512 && AllVisible(rule.name), "a name can be a certificate's");
  Check(rule.name.find('*') == std::string::npos ||
            (rule.name.ends_with("/*") && rule.name.size() > 8 && rule.name.find('*') + 1 == rule.name.size()),
        "a star is the last segment");
  for (const std::optional<Rate>* rate : {&rule.create_rate, &rule.read_rate, &rule.probe_rate}) {
    if (!*rate) continue;
    Check((*rate)->per_second >= 0.001 && (*rate)->per_second <= 100'000 && (*rate)->burst >= 1 &&
              (*rate)->burst <= 1'000'000,
          "a rate is within its range");
  }
  Check(!rule.max_in_flight || (*rule.max_in_flight >= 1 && *rule.max_in_flight <= 1'000'000), "a share is in range");
  for (const std::string& uri : rule.redirect_uris) Check(net::IsRedirectUri(uri), "redirect URIs are such");
}

// The file that says what `policy` says, with its callers the other way round.
json Reversed(const Policy& policy) {
  json file = {{"version", 1}, {"callers", json::array()}};
  for (auto rule = policy.rules().rbegin(); rule != policy.rules().rend(); ++rule) {
    file["callers"].push_back(Written(*rule));
  }
  return file;
}

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  std::vector<std::string> callers;
  for (std::string_view line = input.Until('\n'); !line.empty() && callers.size() < 8; line = input.Until('\n')) {
    callers.emplace_back(line);
  }
  const std::string_view text = input.Rest();
  const absl::StatusOr<Policy> policy = Timed([&] { return Policy::Parse(text); });
  if (!policy.ok()) {
    const std::string message(policy.status().message());
    Check(!message.empty() && message.size() <= 1024 && AllPrintable(message), "an error is one line that can be read");
    return;
  }
  Check(!policy->rules().empty(), "a policy names somebody");
  for (const Rule& rule : policy->rules()) CheckRule(rule);

  json file = Reversed(*policy);
  const absl::StatusOr<Policy> reversed = Policy::Parse(file.dump());
  Check(reversed.ok() && std::equal(reversed->rules().rbegin(), reversed->rules().rend(), policy->rules().begin(),
                                    policy->rules().end(), Same),
        "what was read can be written and read again");
  file["callers"].back()["comment"] = "x";
  Check(!Policy::Parse(file.dump()).ok(), "a member that is not understood is refused");
  file["callers"].back().erase("comment");
  file["callers"].push_back(file["callers"].front());
  Check(!Policy::Parse(file.dump()).ok(), "the same name twice is refused");

  for (size_t i = 0; i < policy->rules().size() && i < 8; ++i) {
    std::string name = CallerName(policy->rules()[i].name);
    if (name.ends_with("/*")) name.resize(name.size() - 2);
    for (const char* end : {"", "/x", "/x/y", "/", "//x", "/../x", "x", "/x/..", "/*"}) callers.push_back(name + end);
  }
  for (const std::string& caller : callers) CheckDecisions(*policy, *reversed, caller);
}

}  // namespace userintent::fuzz
