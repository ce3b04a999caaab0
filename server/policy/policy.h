// Policy: which caller may call which method, and within which limits (contract section 9).
//
// Plain values and pure functions; a Policy never changes, so any thread may use it. Decide() is the only place that
// decides: the server, --check_policy and the tests ask it.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/policy/method.h"

namespace userintent::policy {

// A token bucket: it holds `burst` tokens at most and gains `per_second`.
struct Rate {
  double per_second = 0;  // 0.001 to 100,000
  int burst = 1;          // 1 to 1,000,000
  friend bool operator==(const Rate&, const Rate&) = default;
};

// What one caller, or all whose names begin alike, may do.
struct Rule {
  std::string name;  // as in the file; for log lines and --check_policy
  std::array<bool, kMethodCount> methods{};
  std::optional<Rate> create_rate, read_rate, probe_rate;  // nothing: no limit of the rule's own
  std::optional<int> max_in_flight;                        // 1 to 1,000,000
  std::vector<std::string> redirect_uris;                  // each is a net::IsRedirectUri
  bool may_supersede_others = false;
  bool enforce = true;  // false: what would be refused passes, and is counted

  bool Lists(Method method) const { return methods[static_cast<size_t>(method)]; }
};

struct Verdict {
  bool allowed = false;
  bool would_deny = false;     // allowed only because the rule says `enforce: false`
  const Rule* rule = nullptr;  // the one that counts, the policy's; null: no rule names the caller

  friend bool operator==(const Verdict&, const Verdict&) = default;
};

// What `rule`, which counts for the caller or is null, says of one method.
Verdict Judge(const Rule* rule, Method method);

// A caller's name in a file or on a command line becomes the one that the gateway uses (server/rpc/identity.h):
// "uri:NAME", "dns:NAME" or "local". These forms stay as they are; otherwise a name with a colon in it is that of a URI
// SAN, any other that of a DNS SAN. So a DNS SAN never passes for a URI SAN, whatever stands in it.
std::string CallerName(std::string_view written);

class Policy {
 public:
  // The text of a policy file. Strict: what is not understood to the last member is refused, because a rule that is
  // read in part allows or forbids something else than its writer meant. An error is one line that begins with the
  // place ("callers[3].methods[1]") and says what to do; of the content it holds names of members at most.
  static absl::StatusOr<Policy> Parse(std::string_view json);

  // Each name is well formed, and no two mean the same callers; Parse() makes sure of it.
  explicit Policy(std::vector<Rule> rules);

  // What the rules refer to moves along with them.
  Policy(Policy&&) = default;
  Policy& operator=(Policy&&) = default;

  // The rule that counts for a caller, by its internal name: the one with exactly this name, or else the longest
  // "PREFIX/*" where one or more segments follow PREFIX. A segment that is empty, "." or ".." never follows. Null:
  // there is none.
  const Rule* RuleOf(std::string_view caller) const;

  Verdict Decide(std::string_view caller, Method method) const { return Judge(RuleOf(caller), method); }

  const std::vector<Rule>& rules() const { return rules_; }

 private:
  std::vector<Rule> rules_;
  // Places in rules_, by internal names; of a wildcard without its "/*".
  std::map<std::string, size_t, std::less<>> exact_;
  std::map<std::string, size_t, std::less<>> wildcards_;
};

}  // namespace userintent::policy
