// Ids of POSTs, fresh for each. Astra is told of one in the POST's metadata, where the caller has left room for it
// (contract section 2); then it stands in the intent and in its webhooks, and who asks Astra for it learns what became
// of the POST. An id that Astra was not told must not be asked for: "unknown" would be no answer. So it is a UUID of
// another version, which a row keeps like any other. Pure functions; any thread.
#pragma once

#include "server/base/uuid.h"
#include "server/intent/fields.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

// Version 4: Astra is told. Version 8 (RFC 9562: of one's own meaning): it is not.
inline Uuid NewAttemptId(const v1::CreateUserIntentRequest& request) {
  Uuid id = RandomUuid();
  if (request.metadata().size() >= intent::kMaxMetadataKeys) id[6] = static_cast<uint8_t>(0x80 | (id[6] & 0x0f));
  return id;
}

inline bool AstraWasTold(const Uuid& attempt_id) { return attempt_id[6] >> 4 != 8; }

}  // namespace userintent::usecase
