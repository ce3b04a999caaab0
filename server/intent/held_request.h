// HeldRequest: a request while somebody needs it. What it says of a person is overwritten before the memory goes back
// to the allocator. Belongs to one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::intent {

// Overwrites every field of the table (fields.h) and the values of metadata; their keys are the caller's words, and
// stay. Nobody reads the request any more.
void WipePerson(v1::CreateUserIntentRequest& request);

class HeldRequest {
 public:
  explicit HeldRequest(v1::CreateUserIntentRequest&& request) : message_(std::move(request)) {}
  ~HeldRequest();
  HeldRequest(const HeldRequest&) = delete;
  HeldRequest& operator=(const HeldRequest&) = delete;

  // Not while it is packed.
  const v1::CreateUserIntentRequest& operator*() const { return *message_; }
  const v1::CreateUserIntentRequest* operator->() const { return &*message_; }
  bool has_value() const { return message_.has_value(); }

  // Keeps no more than its bytes: a fraction of the message.
  void Pack();
  void Unpack();

 private:
  void DropMessage();

  std::optional<v1::CreateUserIntentRequest> message_;
  std::string packed_;
};

}  // namespace userintent::intent
