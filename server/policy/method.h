// Method: the methods of our service, as rules, metrics and the listener name them. Pure; any thread.
#pragma once

#include <cstddef>
#include <iterator>
#include <optional>
#include <string_view>

namespace userintent::policy {

// kMethodNames has their names, in this order.
enum class Method { kCreateUserIntent, kGetCreation, kGetUserIntent, kGetAuthorizationUrl, kWatchUserIntents };
inline constexpr std::string_view kMethodNames[] = {"CreateUserIntent", "GetCreation", "GetUserIntent",
                                                    "GetAuthorizationUrl", "WatchUserIntents"};
inline constexpr size_t kMethodCount = std::size(kMethodNames);

constexpr std::string_view NameOf(Method method) { return kMethodNames[static_cast<size_t>(method)]; }

// Nothing: no method has that name. Names are compared byte by byte.
constexpr std::optional<Method> MethodOf(std::string_view name) {
  for (size_t i = 0; i < kMethodCount; ++i) {
    if (kMethodNames[i] == name) return static_cast<Method>(i);
  }
  return std::nullopt;
}

// A read changes nothing at Astra; a rule's read_rate counts it (contract section 9).
constexpr bool IsRead(Method method) { return method != Method::kCreateUserIntent; }

}  // namespace userintent::policy
