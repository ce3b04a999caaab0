// How urgent a line of the log is, and what --log_level takes. Constants and pure functions; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace userintent::observe {

enum class Level : uint8_t { kTrace, kDebug, kInfo, kWarn, kError };

std::string_view LevelName(Level level);
std::optional<Level> ParseLevel(std::string_view name);

}  // namespace userintent::observe
