// A request that breaks no rule; tests change one field of it at a time. All data is invented.
#pragma once

#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::intent {

inline v1::CreateUserIntentRequest ValidRequest() {
  v1::CreateUserIntentRequest request;
  request.set_request_id("123e4567-e89b-42d3-a456-426614174000");
  request.set_email("Ada.Lovelace@example.com");
  request.set_phone("+14155550123");
  request.set_first_name("Ada");
  request.set_last_name("Lovelace");
  request.set_address1("120 Market Street");
  request.set_address2("Apt 4B");
  request.set_city("San Francisco");
  request.set_state("CA");
  request.set_postal_code("94105");
  request.set_date_of_birth("1990-12-10");
  request.set_ssn_last_four("1234");
  request.set_ip_address("8.8.8.8");
  (*request.mutable_metadata())["order"] = "12345";
  (*request.mutable_metadata())["campaign"] = "spring";
  return request;
}

}  // namespace userintent::intent
