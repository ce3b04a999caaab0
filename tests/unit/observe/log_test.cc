#include "server/observe/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "server/observe/line_budget.h"

namespace userintent::observe {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kNoon = 1714564800123;  // 2024-05-01T12:00:00.123Z

// What must not compile: text that is neither a literal nor declared safe.
static_assert(!std::is_constructible_v<Field, Key, std::string>);
static_assert(!std::is_constructible_v<Field, Key, std::string_view>);
static_assert(!std::is_constructible_v<Field, Key, const char*>);
static_assert(!std::is_constructible_v<Field, Key, void*>);
static_assert(!std::is_convertible_v<std::string, SafeText>);
static_assert(!std::is_constructible_v<Key, std::string>);
static_assert(!std::is_constructible_v<Event, std::string>);
static_assert(std::is_constructible_v<Field, Key, SafeText>);
static_assert(std::is_constructible_v<Field, Key, bool>);

TEST(Log, WritesOneObjectWithTimeLevelEventAndFields) {
  const std::string name = "127.0.0.1:50051";
  EXPECT_EQ(FormatLine(Level::kInfo, "server_started",
                       {{"address", SafeText(name)}, {"shards", 3}, {"tls", false}, {"detail", "drain"}}, kNoon),
            R"({"time":"2024-05-01T12:00:00.123Z","level":"info","event":"server_started",)"
            R"("address":"127.0.0.1:50051","shards":3,"tls":false,"detail":"drain"})");
}

TEST(Log, WritesTimesInMillisecondsAndFieldsThatVary) {
  std::vector<Field> fields = {{"total_ms", std::chrono::microseconds(1234)},
                               {"begin_ms", std::chrono::microseconds(7)},
                               {"finish_ms", std::chrono::microseconds(-1)}};
  EXPECT_EQ(FormatLine(Level::kInfo, "call", std::span<const Field>(fields), kNoon),
            R"({"time":"2024-05-01T12:00:00.123Z","level":"info","event":"call",)"
            R"("total_ms":1.234,"begin_ms":0.007,"finish_ms":0.000})");
  ScopedLogCapture capture;
  fields.pop_back();
  Log(Level::kInfo, "call", std::span<const Field>(fields));
  EXPECT_THAT(capture.Lines(),
              testing::ElementsAre(testing::HasSubstr(R"("event":"call","total_ms":1.234,"begin_ms":0.007})")));
}

TEST(Log, TheTimeOfALineIsItsOwn) {
  const std::pair<int64_t, const char*> times[] = {
      {kNoon, "2024-05-01T12:00:00.123Z"},       {kNoon + 876, "2024-05-01T12:00:00.999Z"},
      {kNoon + 877, "2024-05-01T12:00:01.000Z"}, {0, "1970-01-01T00:00:00.000Z"},
      {-1, "1969-12-31T23:59:59.999Z"},          {kNoon, "2024-05-01T12:00:00.123Z"}};
  for (const auto& [unix_ms, text] : times) {
    EXPECT_EQ(json::parse(FormatLine(Level::kInfo, "time", {}, unix_ms))["time"], text);
  }
}

TEST(LineBudget, SoManyASecondAndTheRestIsCounted) {
  LineBudget budget(3);
  const LineBudget::Clock::time_point start{std::chrono::hours(1)};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(budget.Allow(start), 0u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(budget.Allow(start + std::chrono::milliseconds(999)), std::nullopt);
  EXPECT_EQ(budget.Allow(start + std::chrono::seconds(1)), 5u);
  EXPECT_EQ(budget.Allow(start + std::chrono::seconds(1)), 0u);
}

TEST(Log, KeepsTheSignAndSizeOfNumbers) {
  const json line = json::parse(FormatLine(Level::kWarn, "numbers",
                                           {{"count", int64_t{-5}},
                                            {"rows", uint64_t{18446744073709551615U}},
                                            {"http_status", int8_t{-1}},
                                            {"line", uint16_t{65535}}},
                                           kNoon));
  EXPECT_EQ(line["count"].get<int64_t>(), -5);
  EXPECT_EQ(line["rows"].get<uint64_t>(), 18446744073709551615U);
  EXPECT_EQ(line["http_status"].get<int>(), -1);
  EXPECT_EQ(line["line"].get<int>(), 65535);
}

TEST(Log, NoTextBreaksOrForgesALine) {
  std::string every_byte;
  for (int c = 0; c < 256; ++c) every_byte += static_cast<char>(c);
  const std::string texts[] = {
      "two\nlines\r\n",
      "\"},{\"level\":\"error",
      "\x1b[2J\x7f",
      std::string("a\0b", 3),
      "\xe2\x80\xa8\xe2\x80\xae",  // line separator, right-to-left override
      "\xff\xfe not utf-8",
      every_byte,
      "%v %n {} {0}",
  };
  for (const std::string& text : texts) {
    const std::string line = FormatLine(Level::kError, "hostile", {{"detail", SafeText(text)}}, kNoon);
    for (char c : line) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << static_cast<int>(c);
    const json parsed = json::parse(line);
    EXPECT_EQ(parsed.size(), 4U) << line;
    EXPECT_EQ(parsed["level"], "error");
  }
}

TEST(Log, CutsLongTexts) {
  const std::string text(100000, 'x');
  const std::string line = FormatLine(Level::kInfo, "long", {{"detail", SafeText(text)}}, kNoon);
  EXPECT_LT(line.size(), 700U);
  EXPECT_THAT(json::parse(line)["detail"].get<std::string>(), testing::EndsWith("x..."));
}

TEST(Log, LevelsBelowTheSetOneAreOff) {
  ScopedLogCapture capture;
  SetLogLevel(Level::kWarn);
  Log(Level::kInfo, "not_shown");
  Log(Level::kWarn, "shown");
  Log(Level::kError, "shown_too", {{"count", 1}});
  SetLogLevel(Level::kInfo);
  const std::vector<std::string> lines = capture.Lines();
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(json::parse(lines[0])["event"], "shown");
  EXPECT_EQ(json::parse(lines[1])["count"], 1);
  EXPECT_FALSE(LogEnabled(Level::kDebug));
}

TEST(Log, LevelNamesParseBack) {
  for (const Level level : {Level::kTrace, Level::kDebug, Level::kInfo, Level::kWarn, Level::kError}) {
    EXPECT_EQ(ParseLevel(LevelName(level)), level);
  }
  for (const char* bad : {"", "INFO", "warning", "info "}) EXPECT_EQ(ParseLevel(bad), std::nullopt) << bad;
}

TEST(Log, KeysAreSortedUniqueAndNameNoPersonalData) {
  const std::set<std::string_view> forbidden = {"email", "phone", "first_name", "last_name",  "address1", "address2",
                                                "city",  "name",  "ssn",        "birth",      "ip",       "ip_address",
                                                "body",  "user",  "secret",     "credential", "metadata"};
  for (size_t i = 0; i < std::size(kLogKeys); ++i) {
    if (i > 0) {
      EXPECT_LT(kLogKeys[i - 1], kLogKeys[i]);
    }
    EXPECT_FALSE(forbidden.contains(kLogKeys[i])) << kLogKeys[i];
  }
}

// The list says what the log may tell, so it holds no key that nothing tells. Read out of the calls of Log in server/.
TEST(Log, EveryKeyIsWrittenSomewhere) {
  std::set<std::string> written;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(USERINTENT_SERVER_SOURCES)) {
    if (entry.path().extension() != ".cc") continue;
    std::ifstream in(entry.path());
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    for (size_t call = text.find("Log("); call != std::string::npos; call = text.find("Log(", call + 1)) {
      const std::string fields = text.substr(call, text.find(");", call) - call);
      for (size_t at = fields.find("{\""); at != std::string::npos; at = fields.find("{\"", at + 1)) {
        written.insert(fields.substr(at + 2, fields.find('"', at + 2) - at - 2));
      }
    }
    // Of lines whose fields are not always the same.
    for (const std::string begin : {"fields.Add(\"", "Field(\""}) {
      for (size_t at = text.find(begin); at != std::string::npos; at = text.find(begin, at + 1)) {
        const size_t key = at + begin.size();
        written.insert(text.substr(key, text.find('"', key) - key));
      }
    }
  }
  ASSERT_FALSE(written.empty());
  for (const std::string_view listed : kLogKeys) EXPECT_TRUE(written.contains(std::string(listed))) << listed;
}

// Puts a pipe in the place of stderr.
class StderrPipe {
 public:
  StderrPipe() : saved_(dup(2)) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    reader_ = ends[0];
    dup2(ends[1], 2);
    close(ends[1]);
  }
  ~StderrPipe() {
    Restore();
    close(reader_);
  }
  void Restore() {
    if (saved_ < 0) return;
    dup2(saved_, 2);
    close(saved_);
    saved_ = -1;
  }
  // Everything until Restore() takes the last writer away.
  std::string ReadAll() const {
    std::string text;
    char buffer[65536];
    ssize_t n;
    while ((n = read(reader_, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
    return text;
  }

 private:
  int saved_;
  int reader_;
};

std::vector<std::string> SplitLines(const std::string& text) {
  std::vector<std::string> lines;
  std::string line;
  for (char c : text) {
    if (c == '\n') {
      lines.push_back(std::move(line));
      line.clear();
    } else {
      line += c;
    }
  }
  EXPECT_TRUE(line.empty()) << "no newline at the end";
  return lines;
}

TEST(Log, QueuedLinesAllReachStderrWholeByTheEndOfStopLog) {
  StderrPipe pipe;
  std::string text;
  StartLog();
  std::thread reader([&] { text = pipe.ReadAll(); });
  std::vector<std::thread> writers;
  for (int t = 0; t < 4; ++t) {
    writers.emplace_back([t] {
      for (int i = 0; i < 500; ++i) Log(Level::kInfo, "written", {{"shards", t}, {"count", i}});
    });
  }
  for (std::thread& writer : writers) writer.join();
  StopLog(std::chrono::minutes(5));
  Log(Level::kInfo, "after_stop");
  pipe.Restore();
  reader.join();
  std::set<std::pair<int, int>> seen;
  std::vector<std::string> lines = SplitLines(text);
  ASSERT_EQ(lines.size(), 2001U);
  EXPECT_EQ(json::parse(lines.back())["event"], "after_stop");
  lines.pop_back();
  for (const std::string& line : lines) {
    const json parsed = json::parse(line);
    seen.emplace(parsed["shards"].get<int>(), parsed["count"].get<int>());
  }
  EXPECT_EQ(seen.size(), 2000U);
}

TEST(Log, AReaderThatStoppedNeverHoldsAWriter) {
  StderrPipe pipe;  // nobody reads it for now
  StartLog();
  // Far more than pipe and queue hold: this loop ends only because lines are dropped.
  const std::string filler(400, 'x');
  for (int i = 0; i < 20000; ++i) Log(Level::kInfo, "flood", {{"detail", SafeText(filler)}});
  EXPECT_GT(DroppedLogLines(), 1000U);
  std::string text;
  std::thread reader([&] { text = pipe.ReadAll(); });
  StopLog(std::chrono::minutes(5));
  pipe.Restore();
  reader.join();
  const std::vector<std::string> lines = SplitLines(text);
  EXPECT_GT(lines.size(), 1000U);
  for (const std::string& line : lines) EXPECT_TRUE(json::accept(line));
}

std::vector<std::string> Events(const ScopedLogCapture& capture) {
  std::vector<std::string> events;
  for (const std::string& line : capture.Lines()) events.push_back(json::parse(line)["event"]);
  return events;
}

TEST(LinesTogether, WaitForTheEndOfTheTurn) {
  const ScopedLogCapture capture;
  {
    const LinesTogether lines;
    Log(Level::kInfo, "one");
    Log(Level::kInfo, "two");
    EXPECT_THAT(Events(capture), IsEmpty());
    std::thread([] { Log(Level::kInfo, "elsewhere"); }).join();
    EXPECT_THAT(Events(capture), ElementsAre("elsewhere"));
  }
  EXPECT_THAT(Events(capture), ElementsAre("elsewhere", "one", "two"));
  Log(Level::kInfo, "after");
  EXPECT_THAT(Events(capture), ElementsAre("elsewhere", "one", "two", "after"));
}

TEST(LinesTogether, AWarningWaitsForNothingAndOvertakesNothing) {
  const ScopedLogCapture capture;
  const LinesTogether lines;
  Log(Level::kInfo, "one");
  Log(Level::kWarn, "two");
  EXPECT_THAT(Events(capture), ElementsAre("one", "two"));
}

TEST(LinesTogether, AreNotTooMany) {
  const ScopedLogCapture capture;
  const LinesTogether lines;
  for (int i = 0; i < 2 * LinesTogether::kMost + 1; ++i) Log(Level::kInfo, "one");
  EXPECT_THAT(Events(capture), SizeIs(2 * LinesTogether::kMost));
}

TEST(LinesTogether, AreLinesOnStderr) {
  StderrPipe pipe;
  StartLog();
  {
    const LinesTogether lines;
    Log(Level::kInfo, "one");
    Log(Level::kInfo, "two");
  }
  StopLog(std::chrono::minutes(5));
  pipe.Restore();
  const std::vector<std::string> written = SplitLines(pipe.ReadAll());
  ASSERT_THAT(written, SizeIs(2));
  EXPECT_EQ(json::parse(written[1])["event"], "two");
}

TEST(LogLimiter, LetsOneLineThroughAnIntervalAndCountsTheRest) {
  using std::chrono::seconds;
  LogLimiter limiter(seconds(10));
  const LogLimiter::Clock::time_point start{seconds(1000)};
  EXPECT_EQ(limiter.Allow(start), 0U);
  EXPECT_EQ(limiter.Allow(start), std::nullopt);
  EXPECT_EQ(limiter.Allow(start + seconds(9)), std::nullopt);
  EXPECT_EQ(limiter.Allow(start + seconds(10)), 2U);
  EXPECT_EQ(limiter.Allow(start + seconds(10)), std::nullopt);
  EXPECT_EQ(limiter.Allow(start + seconds(100)), 1U);
}

TEST(LogLimiter, LosesNothingBetweenThreads) {
  LogLimiter limiter(std::chrono::nanoseconds(200));
  std::atomic<uint64_t> let_through{0};
  std::atomic<uint64_t> reported{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        if (const auto held = limiter.Allow()) {
          ++let_through;
          reported += *held;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto last = limiter.Allow(LogLimiter::Clock::now() + std::chrono::seconds(1));
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(let_through + reported + *last, 80000U);
}

}  // namespace
}  // namespace userintent::observe
