#include "server/intent/held_request.h"

#include "server/base/wipe.h"
#include "server/intent/fields.h"

namespace userintent::intent {

void WipePerson(v1::CreateUserIntentRequest& request) {
  ForEachField([&request](auto row) {
    if (!row.Get(request).empty()) Wipe(*row.Mutable(request));
  });
  for (auto& [key, value] : *request.mutable_metadata()) Wipe(value);
}

HeldRequest::~HeldRequest() {
  DropMessage();
  Wipe(packed_);
}

void HeldRequest::DropMessage() {
  if (message_) WipePerson(*message_);
  message_.reset();
}

void HeldRequest::Pack() {
  if (!message_) return;
  packed_ = message_->SerializeAsString();
  DropMessage();
}

void HeldRequest::Unpack() {
  if (message_) return;
  (void)message_.emplace().ParseFromString(packed_);  // what it was itself written to
  Wipe(packed_);
}

}  // namespace userintent::intent
