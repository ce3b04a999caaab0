// Uuid: 16 bytes, written 8-4-4-4-12. Pure values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace userintent {

using Uuid = std::array<uint8_t, 16>;

// The text form 8-4-4-4-12 in either case; nothing else parses (no braces, no urn:, no spaces).
std::optional<Uuid> ParseUuid(std::string_view text);

// Lower case, 36 characters.
std::string UuidText(const Uuid& uuid);

// Version 4 from the operating system's generator.
Uuid RandomUuid();

}  // namespace userintent
