#include "server/astra/retry_after.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "server/base/text.h"

namespace userintent::astra {
namespace {

// RFC 9110, 5.6.7: the form that is sent, and the two obsolete ones that a recipient must know.
constexpr const char* kDates[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"};
constexpr size_t kLongestDate = sizeof("Wednesday, 06-Nov-94 08:49:37 GMT") - 1;

std::string_view TrimOptionalWhitespace(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

}  // namespace

std::optional<absl::Time> ParseHttpDate(std::string_view header) {
  header = TrimOptionalWhitespace(header);
  // A date has blanks; words that stand for infinity in Abseil have none.
  if (header.size() > kLongestDate || header.find(' ') == std::string_view::npos) return std::nullopt;
  // ParseTime alone would also take "6 nov 1994", other spacing and a weekday that is not that day's; writing the
  // moment down again and comparing takes exactly these forms.
  const std::string date(header);
  for (const char* format : kDates) {
    absl::Time when;
    std::string error;
    if (!absl::ParseTime(format, date, &when, &error) || absl::FormatTime(format, when, absl::UTCTimeZone()) != date) {
      continue;
    }
    // A year has four digits; Abseil reads and writes others, too.
    const absl::civil_year_t year = absl::ToCivilYear(when, absl::UTCTimeZone()).year();
    if (year >= 1000 && year <= 9999) return when;
  }
  return std::nullopt;
}

std::optional<absl::Duration> ParseRetryAfter(std::string_view header, absl::Time now) {
  header = TrimOptionalWhitespace(header);
  if (header.empty()) return std::nullopt;

  if (AllDigits(header)) {
    const int64_t cap = absl::ToInt64Seconds(kMaxRetryAfter);
    int64_t seconds = 0;
    for (const char c : header) seconds = std::min(cap, seconds * 10 + (c - '0'));  // saturates, however many digits
    return absl::Seconds(seconds);
  }

  const std::optional<absl::Time> when = ParseHttpDate(header);
  if (!when) return std::nullopt;
  return std::clamp(*when - now, absl::ZeroDuration(), kMaxRetryAfter);
}

}  // namespace userintent::astra
