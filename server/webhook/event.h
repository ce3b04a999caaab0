// What a webhook says: the members of its body that are used (contract section 8). The rest is never looked at.
//
// Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "absl/time/time.h"
#include "server/ledger/webhook_queue.h"
#include "server/webhook/json_object.h"

namespace userintent::webhook {

// Of an object whose signature is good. Nothing: webhook_type, webhook_id or resource_id is missing, stands there
// twice, is no string, or is empty, too long or not printable; or metadata stands there twice, or is no object (null is
// as good as none). The attempt id is taken from metadata where it is one UUID; other text there is not the gateway's.
std::optional<ledger::Webhook> ReadEvent(const JsonObject& object, absl::Time received);

}  // namespace userintent::webhook
