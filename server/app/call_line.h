// CallLine: the log's one line for each call that created an intent or failed (contract section 11), and which calls
// have none: replays and reads that succeeded, watches whose caller left, and calls that the policy refused, of which
// `call_denied` tells.
//
// Any thread; one for the process. Calls that did nothing at Astra cost their caller nothing, so a caller can make any
// number of them: of these so many lines a second are written, and the others are counted by the next one. A call that
// began a POST always has its line.
#pragma once

#include "server/observe/line_budget.h"
#include "server/rpc/call_observer.h"

namespace userintent {

class CallLine {
 public:
  static constexpr int kIdleCallsPerSecond = 200;

  void Write(const rpc::EndedCall& call);

 private:
  observe::LineBudget idle_calls_{kIdleCallsPerSecond};
};

}  // namespace userintent
