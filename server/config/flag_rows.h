// The table of flags, in the order of the contract (section 5); flags that it does not name stand beside their
// relatives.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/config/settings.h"
#include "server/config/values.h"

namespace userintent::config {

struct FlagRow {
  const char* name;
  const char* meaning;
  bool boolean;
  Form (*form)();
  absl::Status (*take)(std::string_view name, std::string_view text, Settings& settings);
  std::string (*text)(const Settings& settings);
};

absl::Span<const FlagRow> FlagRows();

}  // namespace userintent::config
