#include "server/astra/retry_after.h"

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/astra/answered.h"

namespace userintent::astra {
namespace {

using std::string_literals::operator""s;

TEST(RetryAfter, Seconds) {
  EXPECT_EQ(ParseRetryAfter("0", kNow), absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("1", kNow), absl::Seconds(1));
  EXPECT_EQ(ParseRetryAfter("007", kNow), absl::Seconds(7));
  EXPECT_EQ(ParseRetryAfter(" 120\t", kNow), absl::Seconds(120));
  EXPECT_EQ(ParseRetryAfter("86400", kNow), absl::Hours(24));
}

TEST(RetryAfter, ManySecondsAreCut) {
  for (const std::string& text : {"86401"s, "4294967297"s, "18446744073709551617"s, std::string(10000, '9')}) {
    EXPECT_EQ(ParseRetryAfter(text, kNow), absl::Hours(24)) << text.substr(0, 30);
  }
}

TEST(RetryAfter, Date) {
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:37 GMT", kNow), absl::Seconds(37));
  EXPECT_EQ(ParseRetryAfter(" Sun, 06 Nov 1994 08:49:37 GMT ", kNow), absl::Seconds(37));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:00 GMT", kNow), absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:37 GMT", kNow + absl::Milliseconds(500)), absl::Seconds(36.5));
  EXPECT_EQ(ParseRetryAfter("Thu, 29 Feb 1996 00:00:00 GMT",
                            absl::FromCivil(absl::CivilSecond(1996, 2, 28, 23, 0, 0), absl::UTCTimeZone())),
            absl::Hours(1));
}

// Obsolete, but a recipient must know them (RFC 9110, 5.6.7).
TEST(RetryAfter, ObsoleteDates) {
  EXPECT_EQ(ParseRetryAfter("Sunday, 06-Nov-94 08:49:37 GMT", kNow), absl::Seconds(37));
  EXPECT_EQ(ParseRetryAfter("Sun Nov  6 08:49:37 1994", kNow), absl::Seconds(37));
  const absl::Time later = absl::FromCivil(absl::CivilSecond(2026, 11, 25, 8, 49, 0), absl::UTCTimeZone());
  EXPECT_EQ(ParseRetryAfter("Wednesday, 25-Nov-26 08:49:37 GMT", later), absl::Seconds(37));
  EXPECT_EQ(ParseRetryAfter("Wed Nov 25 08:49:37 2026", later), absl::Seconds(37));
}

TEST(RetryAfter, PastDateIsZero) {
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:48:59 GMT", kNow), absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("Thu, 01 Jan 1970 00:00:00 GMT", kNow), absl::ZeroDuration());
}

TEST(RetryAfter, FarDateIsCut) { EXPECT_EQ(ParseRetryAfter("Fri, 31 Dec 9999 23:59:59 GMT", kNow), absl::Hours(24)); }

TEST(RetryAfter, AnythingElseIsAbsent) {
  const std::vector<std::string> texts = {
      "",
      " ",
      "-1",
      "+1",
      "1.5",
      "1e3",
      "0x10",
      "1 2",
      "1,2",
      "1s",
      "soon",
      "\u0661",
      "1\0"s,
      "\n1",
      "Sun, 06 Nov 1994 08:49:37",          // no zone
      "Sun, 06 Nov 1994 08:49:37 UTC",      // another word for it
      "Sun, 06 Nov 1994 08:49:37 +0000",    //
      "Sun, 06 Nov 1994 08:49:37 EST",      //
      "Sun, 6 Nov 1994 08:49:37 GMT",       // one digit
      "Sun,  06 Nov 1994 08:49:37 GMT",     // two spaces
      "sun, 06 nov 1994 08:49:37 gmt",      // case
      "Sunday, 06 Nov 1994 08:49:37 GMT",   //
      "Mon, 06 Nov 1994 08:49:37 GMT",      // was a Sunday
      "Sun, 06 Nov 94 08:49:37 GMT",        // two-digit year
      "Sat, 06 Nov 94 08:49:37 GMT",        // and on the weekday that it was in the year 94
      "Sat, 01 Jan 10000 00:00:00 GMT",     // five digits
      "Sun, 31 Nov 1994 08:49:37 GMT",      // no such day
      "Wed, 29 Feb 1995 08:49:37 GMT",      //
      "Sun, 06 Nov 1994 24:00:00 GMT",      // no such hour
      "Sun, 06 Nov 1994 08:60:00 GMT",      //
      "Sun, 06 Nov 1994 08:49:37 GMT GMT",  //
      "Sun, 06 Nov 1994 08:49:37.5 GMT",    //
      "06 Nov 1994 08:49:37 GMT",           // no weekday
      "Sunday, 06-Nov-1994 08:49:37 GMT",   // the obsolete forms, but not quite
      "Sun, 06-Nov-94 08:49:37 GMT",        //
      "Monday, 06-Nov-94 08:49:37 GMT",     //
      "Sun Nov 6 08:49:37 1994",            //
      "Sun Nov 06 08:49:37 1994",           //
      "Sun Nov  6 08:49:37 1994 GMT",       //
      "1994-11-06T08:49:37Z",               //
      "infinite-future",                    // words that time libraries know
      "infinite-past",                      //
      "Sun, 06 Nov 1994 08:49:37 GMT\0"s,   //
      std::string(100000, ' ') + "x",       //
  };
  for (const std::string& text : texts) {
    EXPECT_EQ(ParseRetryAfter(text, kNow), std::nullopt) << text.substr(0, 60);
  }
}

TEST(HttpDate, ThreeFormsOneMoment) {
  for (const char* text : {"Sun, 06 Nov 1994 08:49:37 GMT", " Sun, 06 Nov 1994 08:49:37 GMT\t",
                           "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"}) {
    EXPECT_EQ(ParseHttpDate(text), absl::FromUnixSeconds(784111777)) << text;
  }
  for (const char* text : {"", "784111777", "Sun, 06 Nov 1994 08:49:37 UTC", "infinite-past"}) {
    EXPECT_EQ(ParseHttpDate(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace userintent::astra
