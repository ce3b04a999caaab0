#include "server/astra/retry_after.h"

#include <algorithm>
#include <cstdint>
#include <string>

namespace userintent::astra {
namespace {

constexpr char kImfFixdate[] = "%a, %d %b %Y %H:%M:%S GMT";
constexpr size_t kImfFixdateSize = 29;

std::string_view TrimOptionalWhitespace(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

}  // namespace

std::optional<absl::Duration> ParseRetryAfter(std::string_view header, absl::Time now) {
  header = TrimOptionalWhitespace(header);
  if (header.empty()) return std::nullopt;

  if (std::all_of(header.begin(), header.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    const int64_t cap = absl::ToInt64Seconds(kMaxRetryAfter);
    int64_t seconds = 0;
    for (const char c : header) seconds = std::min(cap, seconds * 10 + (c - '0'));  // saturates, however many digits
    return absl::Seconds(seconds);
  }

  // ParseTime alone would also take "6 nov 1994", other spacing and a weekday that is not that day's; writing the
  // moment down again and comparing takes exactly the one form.
  if (header.size() != kImfFixdateSize) return std::nullopt;
  const std::string date(header);
  absl::Time when;
  std::string error;
  if (!absl::ParseTime(kImfFixdate, date, &when, &error)) return std::nullopt;
  if (absl::FormatTime(kImfFixdate, when, absl::UTCTimeZone()) != date) return std::nullopt;
  return std::clamp(when - now, absl::ZeroDuration(), kMaxRetryAfter);
}

}  // namespace userintent::astra
