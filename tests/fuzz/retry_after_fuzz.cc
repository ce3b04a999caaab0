// The header Retry-After, and HTTP's dates. The first eight bytes are the present time, the rest is the header.
//
// The oracle: digits are saturated seconds; a date is the one that is written down again in the same form.
#include <optional>
#include <string>

#include "server/astra/retry_after.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  // Up to the year 9999 or so; the clock of a server says nothing else.
  const absl::Time now = absl::FromUnixSeconds(static_cast<int64_t>(input.Number(8) % 253'402'300'800));
  const std::string_view header = input.Rest();
  const std::optional<absl::Duration> wait = Timed([&] { return astra::ParseRetryAfter(header, now); });
  const std::optional<absl::Time> date = Timed([&] { return astra::ParseHttpDate(header); });
  const std::string_view text = Trimmed(header);
  if (wait)
    Check(*wait >= absl::ZeroDuration() && *wait <= astra::kMaxRetryAfter, "a wait is between nothing and a day");
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  Check(!(digits && date), "a number is no date");
  Check(wait.has_value() == (digits || date), "a wait is a number or a date, and nothing else");
  if (digits) {
    const std::string_view significant = text.substr(std::min(text.find_first_not_of('0'), text.size()));
    const absl::Duration expected =
        significant.size() > 6 ? astra::kMaxRetryAfter
        : significant.empty()  ? absl::ZeroDuration()
                               : std::min(absl::Seconds(std::stoi(std::string(significant))), astra::kMaxRetryAfter);
    Check(*wait == expected, "a number is seconds, up to a day");
  }
  if (date) {
    Check(*wait == std::clamp(*date - now, absl::ZeroDuration(), astra::kMaxRetryAfter), "a date is waited for");
    Check(text.size() >= 24 && text.size() <= 33, "a date has one of three forms");
    const std::string again = absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", *date, absl::UTCTimeZone());
    Check(Timed([&] { return astra::ParseHttpDate(again); }) == date,
          "the same date in the form that is sent is the same");
    if (text.ends_with("GMT") && text[3] == ',') Check(again == text, "and that form is taken as it is");
  }
}

}  // namespace userintent::fuzz
