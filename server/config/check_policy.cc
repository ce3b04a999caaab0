#include "server/config/check_policy.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "server/config/problems.h"

namespace userintent::config {
namespace {

void AppendRate(const char* name, const std::optional<policy::Rate>& rate, std::string* text) {
  if (rate) absl::StrAppend(text, ", ", name, " ", rate->per_second, "/s burst ", rate->burst);
}

std::string Limits(const policy::Rule& rule) {
  std::string text;
  AppendRate("create_rate", rule.create_rate, &text);
  AppendRate("read_rate", rule.read_rate, &text);
  AppendRate("probe_rate", rule.probe_rate, &text);
  if (rule.max_in_flight) absl::StrAppend(&text, ", max_in_flight ", *rule.max_in_flight);
  if (rule.may_supersede_others) absl::StrAppend(&text, ", may_supersede_others");
  if (!rule.enforce) absl::StrAppend(&text, ", enforce false: nothing is refused, only counted");
  return text;
}

}  // namespace

absl::StatusOr<PolicyAnswer> CheckPolicy(const policy::Policy& policy, std::string_view question) {
  // The last comma: a URI may hold one, a method does not.
  const size_t comma = question.rfind(',');
  if (comma == std::string_view::npos || comma == 0) {
    return Problem("check_policy", "must be CALLER,METHOD, for example spiffe://trust.example/signup,GetCreation");
  }
  const std::optional<policy::Method> method = policy::MethodOf(question.substr(comma + 1));
  if (!method) {
    std::string all;
    for (const std::string_view name : policy::kMethodNames) all.append(all.empty() ? "" : ", ").append(name);
    return Problem("check_policy", "the word after the last comma is no method; there are " + all);
  }
  const policy::Verdict verdict = policy.Decide(policy::CallerName(question.substr(0, comma)), *method);
  if (verdict.rule == nullptr) return PolicyAnswer{false, "denied: no rule names the caller"};
  PolicyAnswer answer{verdict.allowed, verdict.allowed ? "allowed: rule \"" : "denied: rule \""};
  answer.text.append(verdict.rule->name).append("\"");
  if (!verdict.rule->Lists(*method)) answer.text.append(" does not list ").append(policy::NameOf(*method));
  if (verdict.allowed) answer.text.append(Limits(*verdict.rule));
  return answer;
}

}  // namespace userintent::config
