// Messages of a watch, for the tests of this directory. Any thread.
#pragma once

#include <string>
#include <utility>

#include "userintent/v1/user_intent_service.pb.h"

inline userintent::v1::Creation CreationOf(std::string request_id, userintent::v1::CreationState state) {
  userintent::v1::Creation creation;
  creation.set_request_id(std::move(request_id));
  creation.set_state(state);
  return creation;
}

// CREATED, with an intent of this status.
inline userintent::v1::Creation CreationWith(userintent::v1::UserIntentStatus status) {
  userintent::v1::Creation creation = CreationOf("R", userintent::v1::CREATION_STATE_CREATED);
  creation.mutable_user_intent()->set_id("intent");
  creation.mutable_user_intent()->set_status(status);
  return creation;
}

inline userintent::v1::WatchUserIntentsResponse Changed(userintent::v1::Creation creation, std::string token) {
  userintent::v1::WatchUserIntentsResponse message;
  *message.mutable_changed() = std::move(creation);
  message.set_resume_token(std::move(token));
  return message;
}

inline userintent::v1::WatchUserIntentsResponse Synced(std::string token) {
  userintent::v1::WatchUserIntentsResponse message;
  message.mutable_synced();
  message.set_resume_token(std::move(token));
  return message;
}

inline userintent::v1::WatchUserIntentsResponse Heartbeat(std::string token) {
  userintent::v1::WatchUserIntentsResponse message;
  message.mutable_heartbeat();
  message.set_resume_token(std::move(token));
  return message;
}

inline userintent::v1::WatchUserIntentsResponse Reset(std::string token) {
  userintent::v1::WatchUserIntentsResponse message;
  message.mutable_reset();
  message.set_resume_token(std::move(token));
  return message;
}
