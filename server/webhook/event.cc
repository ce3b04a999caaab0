#include "server/webhook/event.h"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "server/base/text.h"
#include "server/base/utf8.h"
#include "server/base/uuid.h"

namespace userintent::webhook {
namespace {

using JsonKind = JsonValue::Kind;

constexpr size_t kLongestWord = 128;

// How often a name stands in an object, and the value at its first place.
struct Found {
  int times = 0;
  const JsonValue* value = nullptr;
};

Found Find(const std::vector<JsonMember>& members, std::string_view name) {
  Found found;
  for (const JsonMember& member : members) {
    if (member.name != name) continue;
    if (++found.times == 1) found.value = &member.value;
  }
  return found;
}

// Whether it is text of this process's own kind: names of types and of webhooks.
bool IsWord(std::string_view text) { return text.size() <= kLongestWord && AllPrintable(text); }

bool Take(const JsonObject& object, std::string_view name, bool (*fits)(std::string_view), std::string* out) {
  const Found found = Find(object.members(), name);
  if (found.times != 1 || found.value->kind != JsonKind::kString) return false;
  const std::string_view text = found.value->text;
  if (text.empty() || !fits(text)) return false;
  *out = std::string(text);
  return true;
}

bool TakeAttemptId(const JsonObject& object, std::optional<Uuid>* out) {
  const Found metadata = Find(object.members(), "metadata");
  if (metadata.times == 0) return true;
  if (metadata.times > 1) return false;
  if (metadata.value->kind == JsonKind::kNull) return true;
  if (metadata.value->kind != JsonKind::kObject) return false;
  const Found id = Find(metadata.value->members, "gateway_attempt_id");
  if (id.times > 1) return false;
  if (id.times == 1 && id.value->kind == JsonKind::kString) *out = ParseUuid(id.value->text);
  return true;
}

}  // namespace

std::optional<ledger::Webhook> ReadEvent(const JsonObject& object, absl::Time received) {
  ledger::Webhook webhook;
  webhook.received = received;
  const bool read =
      Take(object, "webhook_type", &IsWord, &webhook.type) && Take(object, "webhook_id", &IsWord, &webhook.id) &&
      Take(object, "resource_id", &IsAstraId, &webhook.resource_id) && TakeAttemptId(object, &webhook.attempt_id);
  return read ? std::optional(std::move(webhook)) : std::nullopt;
}

}  // namespace userintent::webhook
