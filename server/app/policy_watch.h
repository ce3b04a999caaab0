// PolicyWatch: puts the policy of --policy_file in force, at the start and whenever the file changes, and tells of it.
//
// Belongs to main's thread; server.cc owns it, and what it is given outlives it. The log tells of each change and each
// refusal; after a refusal the last good policy stays in force.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "server/base/loop.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/policy/access.h"
#include "server/policy/policy_file.h"

namespace userintent {

class PolicyWatch {
 public:
  // `file` null: there is none, and everybody may call everything.
  PolicyWatch(std::unique_ptr<policy::PolicyFile> file, policy::Gatekeeper& gatekeeper, observe::Metrics& metrics);

  // Run after each change, once the new policy is in force.
  void OnChange(std::function<void()> run) { on_change_ = std::move(run); }

  // A log line of what is in force; once, at the start.
  void Announce() const;

  // Reads the file again.
  void Refresh();

  // The metric of the file's age; now and then.
  void ShowAge(SteadyTime now);

 private:
  void PutInForce();

  const std::unique_ptr<policy::PolicyFile> file_;
  policy::Gatekeeper& gatekeeper_;
  observe::Metrics& metrics_;
  std::function<void()> on_change_ = [] {};
  observe::LogLimiter reminder_{std::chrono::minutes(1)};
};

}  // namespace userintent
