// outcome: how a call of the library ended, or what an event of a watch told, as ../README.md names it.
//
// Values; any thread may call the functions here.
#pragma once

#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "userintent/authorization_url.h"
#include "userintent/client.h"

// A step, or the end of a scenario, that does not hold.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <typename T>
std::string Text(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

struct Outcome {
  userintent::Client* client = nullptr;
  userintent::v1::CreateUserIntentRequest request;
  absl::Status status;
  nlohmann::json fields;
  std::vector<std::string> texts;  // string forms of the answer or the error
};

// request_id: where the answer does not tell it.
Outcome Failed(const absl::Status& status);
Outcome Of(const absl::StatusOr<userintent::CreateResult>& created);
Outcome Of(const absl::StatusOr<userintent::v1::Creation>& creation);
Outcome Of(const absl::StatusOr<userintent::v1::UserIntent>& intent, const std::string& request_id);
Outcome Of(const absl::StatusOr<userintent::v1::GetUserIntentResponse>& read, const std::string& request_id);
Outcome Of(const absl::StatusOr<userintent::v1::GetAuthorizationUrlResponse>& answer, const std::string& request_id);
Outcome Of(const absl::StatusOr<userintent::AuthorizationUrl>& made, const userintent::v1::UserIntent& intent);
Outcome Of(const userintent::WatchEvent& event);

// A value of an enum by its name without prefix.
userintent::v1::UserIntentStatus StatusNamed(const std::string& name);

// Whether a field has the value that is wanted, which is no "@name".
bool Holds(const std::string& name, const nlohmann::json& got, const nlohmann::json& want);
