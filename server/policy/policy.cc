#include "server/policy/policy.h"

#include <utility>

namespace userintent::policy {
namespace {

constexpr std::string_view kAnyBelow = "/*";

bool IsSegment(std::string_view text) { return !text.empty() && text != "." && text != ".."; }

}  // namespace

Verdict Judge(const Rule* rule, Method method) {
  if (rule == nullptr) return {};
  const bool listed = rule->Lists(method);
  return {.allowed = listed || !rule->enforce, .would_deny = !listed && !rule->enforce, .rule = rule};
}

std::string CallerName(std::string_view written) {
  if (written == "local" || written.starts_with("uri:") || written.starts_with("dns:")) return std::string(written);
  // Every URI has a colon (RFC 3986 section 3), and no DNS name has one.
  return std::string(written.find(':') == std::string_view::npos ? "dns:" : "uri:").append(written);
}

Policy::Policy(std::vector<Rule> rules) : rules_(std::move(rules)) {
  for (size_t place = 0; place < rules_.size(); ++place) {
    std::string name = CallerName(rules_[place].name);
    if (name.ends_with(kAnyBelow)) {
      wildcards_.emplace(name.substr(0, name.size() - kAnyBelow.size()), place);
    } else {
      exact_.emplace(std::move(name), place);
    }
  }
}

const Rule* Policy::RuleOf(std::string_view caller) const {
  if (const auto found = exact_.find(caller); found != exact_.end()) return &rules_[found->second];
  // From the last segment to the first, so the longest prefix comes first. A shorter one has the longer rest: once a
  // segment is none, no shorter prefix matches either.
  std::string_view prefix = caller;
  for (;;) {
    const size_t slash = prefix.rfind('/');
    if (slash == std::string_view::npos || !IsSegment(prefix.substr(slash + 1))) return nullptr;
    prefix = prefix.substr(0, slash);
    if (const auto found = wildcards_.find(prefix); found != wildcards_.end()) return &rules_[found->second];
  }
}

}  // namespace userintent::policy
