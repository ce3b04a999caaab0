#include "server/rpc/unary_method.h"

#include <algorithm>

namespace userintent::rpc {

std::optional<std::string> Identify(const grpc::ServerContext& call, MethodContext& context) {
  const std::shared_ptr<const grpc::AuthContext> peer = call.auth_context();
  if (context.require_identity && context.certificates.Ended(*peer, std::chrono::system_clock::now())) {
    return std::nullopt;
  }
  return CallerOf(*peer, context.require_identity);
}

Entry Enter(const grpc::ServerContext& call, MethodContext& context, Method method) {
  Entry entry;
  std::optional<std::string> caller = Identify(call, context);
  if (!caller) {
    entry.refused = v1::ERROR_REASON_CALLER_UNAUTHENTICATED;
    return entry;
  }
  entry.caller = *std::move(caller);
  if (context.gate == nullptr) return entry;
  policy::Admission admission = context.gate->Admit(entry.caller, method, context.shard.Now());
  const policy::Verdict& verdict = admission.verdict;
  if (!verdict.allowed || verdict.would_deny) context.observer.OnDenied(method, entry.caller, admission);
  if (!verdict.allowed) entry.refused = v1::ERROR_REASON_CALLER_NOT_ALLOWED;
  entry.access = std::move(admission.access);
  return entry;
}

bool StillAllowed(const std::string& caller, MethodContext& context, Method method) {
  if (context.gate == nullptr) return true;
  const policy::Admission admission = context.gate->Admit(caller, method, context.shard.Now());
  if (!admission.verdict.allowed) context.observer.OnDenied(method, caller, admission);
  return admission.verdict.allowed;
}

std::optional<usecase::CallError> TakeRead(const policy::Access* access, Method method) {
  if (access == nullptr || access->account == nullptr || !policy::IsRead(method)) return std::nullopt;
  // Not the time of the shard's turn, which is a little earlier: who comes when it was told to must not be too early.
  const std::optional<absl::Duration> wait = access->account->TakeRead(SteadyClock::now());
  if (!wait) return std::nullopt;
  usecase::CallError error = usecase::CallError::Of(v1::ERROR_REASON_CALLER_RATE_LIMITED);
  error.retry_after = *wait;
  return error;
}

SteadyTime SteadyDeadline(gpr_timespec deadline, SteadyTime now, SteadyClock::duration if_none) {
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return now + if_none;
  const gpr_timespec until = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  // A far deadline means no deadline as well: nothing waits for more than a day, and sums must not overflow.
  constexpr int64_t kDay = 24 * 60 * 60;
  SteadyClock::duration left =
      std::chrono::seconds(std::clamp<int64_t>(until.tv_sec, -kDay, kDay)) + std::chrono::nanoseconds(until.tv_nsec);
  // gRPC's C core sends a long timeout rounded up, by 0.1 s from 10 s on and by 1 s from 100 s on: its caller gives up
  // that much earlier, and must have its answer by then.
  if (left > std::chrono::seconds(100)) {
    left -= std::chrono::seconds(1);
  } else if (left > std::chrono::seconds(10)) {
    left -= std::chrono::milliseconds(100);
  }
  return now + left;
}

}  // namespace userintent::rpc
