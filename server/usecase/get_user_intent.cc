#include "server/usecase/get_user_intent.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "server/base/time.h"
#include "server/intent/rules.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {
namespace {

bool IsAge(const google::protobuf::Duration& age) {
  constexpr int64_t kLongest = 315'576'000'000;  // seconds, of every valid Duration
  return age.seconds() >= 0 && age.seconds() <= kLongest && age.nanos() >= 0 && age.nanos() <= 999'999'999;
}

}  // namespace

CallerLeft GetUserIntent(const ReadDependencies& dependencies, GetUserIntentCall&& call) {
  std::vector<intent::Violation> violations;
  OwnIntentQuery query;
  query.key = KeyOf(call.request, &violations);
  const google::protobuf::Duration& max_age = call.request.max_age();
  if (!IsAge(max_age)) violations.push_back({"max_age", "a valid Duration, not negative"});
  if (!violations.empty()) {
    call.done(CallError::Of(std::move(violations)));
    return nullptr;
  }
  query.caller = std::move(call.caller);
  query.max_age = absl::Seconds(max_age.seconds()) + absl::Nanoseconds(max_age.nanos());
  query.allow_stale = call.request.allow_stale();
  query.deadline = call.deadline;
  query.trace = call.trace;
  return ReadOwnIntent(dependencies, std::move(query), [done = std::move(call.done)](Result<OwnIntent> read) mutable {
    if (!read.ok()) return done(std::move(read.error()));
    const OwnIntent& own = read.value();
    v1::GetUserIntentResponse response;
    *response.mutable_user_intent() = ToUserIntent(*own.record, own.reading);
    SetTimestamp(own.reading.read_at, response.mutable_read_time());
    response.set_stale(own.stale);
    done(std::move(response));
  });
}

}  // namespace userintent::usecase
