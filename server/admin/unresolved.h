// The requests whose outcome nobody knows, with the evidence for each and the commands that settle it, in words: for
// the page of /status. Holds no personal data, as all that operators are shown.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/operator_access.h"

namespace userintent::admin {

struct Unresolved {
  struct Fact {
    std::string name;
    std::string value;
  };
  struct Request {
    std::string request_id;
    std::vector<Fact> facts;
    // To paste into a shell; see CommandsFor in tool_text.h.
    std::string created;
    std::string not_created;
  };
  static constexpr int kShown = 100;
  static constexpr int64_t kCounted = 1000;

  std::vector<Request> requests;  // the oldest first, at most kShown
  int64_t all = 0;                // up to kCounted
  absl::Time read = absl::InfinitePast();
};

struct UnresolvedOptions {
  std::string ledger;                 // for the tool's --ledger; empty: its environment says which
  absl::Duration late_answer_window;  // see --late_answer_window
};

// Without those that their caller replaced by another request, as `userintent-ledger unresolved --not_superseded`.
// Blocks until the ledger has answered; in slices, between which calls are served.
absl::StatusOr<Unresolved> ReadUnresolved(ledger::OperatorAccess& ledger, const UnresolvedOptions& options);

}  // namespace userintent::admin
