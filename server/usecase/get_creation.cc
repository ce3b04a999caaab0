#include "server/usecase/get_creation.h"

#include <utility>

#include "server/base/uuid.h"
#include "server/intent/rules.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {

void GetCreation(ledger::Ledger& ledger, Executor& executor, int attempt_limit, GetCreationCall&& call) {
  if (auto violation = intent::ValidateRequestId(call.request.request_id())) {
    return call.done(CallError::Of({*violation}));
  }
  ledger.Get({std::move(call.caller), *ParseUuid(call.request.request_id())}, executor,
             [done = std::move(call.done), attempt_limit](ledger::GetAnswer answer) mutable {
               if (!answer.available) return done(CallError::Of(v1::ERROR_REASON_LEDGER_UNAVAILABLE));
               if (!answer.record) return done(CallError::Of(v1::ERROR_REASON_REQUEST_NOT_FOUND));
               v1::GetCreationResponse response;
               *response.mutable_creation() = ToCreation(*answer.record, answer.budget, attempt_limit);
               done(std::move(response));
             });
}

}  // namespace userintent::usecase
