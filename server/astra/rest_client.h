// The astra::Client that speaks to Astra over an http::Client.
//
// Belongs to the http::Client's thread; its owner destroys it before the http::Client, and after its destruction the
// http::Client must not Turn() again. Credentials are shared by the whole process and outlive it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/astra/answer.h"
#include "server/astra/astra.h"
#include "server/astra/credentials.h"
#include "server/http/client.h"

namespace userintent::astra {

using WallClock = absl::AnyInvocable<absl::Time()>;

// RefreshCredentials(), called from a `done` that reports kCredentialsRejected, compares with what that very request
// showed, also when later ones have gone out since.
// `user_agent` goes with every request, and with `send_traceparent` the header of that name with those that are traced.
std::unique_ptr<Client> NewRestClient(http::Client& http, Credentials& credentials, std::optional<LimitRule> limit_rule,
                                      std::string user_agent, WallClock clock = absl::Now,
                                      bool send_traceparent = false);

}  // namespace userintent::astra
