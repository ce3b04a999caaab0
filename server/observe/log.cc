#include "server/observe/log.h"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <future>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"

// In this file: the output (spdlog's queue and sink); the text of one line; start and stop; lines that go together;
// LogLimiter; the capture for tests.

namespace userintent::observe {
namespace {

// Indexed by Level.
constexpr std::string_view kLevelNames[] = {"trace", "debug", "info", "warn", "error"};

constexpr size_t kMaxText = 512;       // bytes of one text value; longer ones are cut
constexpr size_t kQueuedTexts = 2048;  // lines, alone or up to LinesTogether::kMost together, that may wait for stderr

// spdlog's part is the queue, the thread and the sink; the line is ours, so its pattern is the bare message.
struct Output {
  Mutex mutex;
  std::shared_ptr<spdlog::details::thread_pool> pool ABSL_GUARDED_BY(mutex);
  std::shared_ptr<spdlog::logger> logger ABSL_GUARDED_BY(mutex);
  std::vector<std::string>* capture ABSL_GUARDED_BY(mutex) = nullptr;
};

// Writes each line before it returns: the log before StartLog() and after StopLog().
std::shared_ptr<spdlog::logger> DirectLogger() {
  auto logger = std::make_shared<spdlog::logger>("direct", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::trace);
  return logger;
}

// Never destroyed: threads may log while the process ends.
Output& TheOutput() {
  static Output* const output = [] {
    auto* fresh = new Output;
    const MutexLock lock(fresh->mutex);
    fresh->logger = DirectLogger();
    return fresh;
  }();
  return *output;
}

spdlog::level::level_enum SpdlogLevel(Level level) {
  switch (level) {
    case Level::kTrace:
      return spdlog::level::trace;
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// Escapes everything but printable ASCII, and replaces what is not UTF-8: cutting may split a character.
void AppendQuoted(std::string_view text, std::string& line) {
  const bool cut = text.size() > kMaxText;
  const auto plain = [](char c) { return IsPrintable(c) && c != '"' && c != '\\'; };
  if (!cut && std::all_of(text.begin(), text.end(), plain)) {  // nearly always
    line += '"';
    line += text;
    line += '"';
    return;
  }
  std::string value(text.substr(0, kMaxText));
  if (cut) value += "...";
  line +=
      nlohmann::json(std::move(value)).dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

// What waits in this thread; see LinesTogether.
struct Waiting {
  bool wanted = false;
  std::vector<std::string> lines;
};
thread_local Waiting waiting;

// Gives the lines to the output, as one text, or to the capture.
void Emit(Level level, std::span<const std::string> lines) {
  Output& output = TheOutput();
  std::shared_ptr<spdlog::logger> logger;
  {
    const MutexLock lock(output.mutex);
    if (output.capture != nullptr) {
      output.capture->insert(output.capture->end(), lines.begin(), lines.end());
      return;
    }
    logger = output.logger;
  }
  const std::string text = absl::StrJoin(lines, "\n");
  logger->log(SpdlogLevel(level), spdlog::string_view_t(text.data(), text.size()));
}

void EmitWaiting() {
  if (waiting.lines.empty()) return;
  Emit(Level::kInfo, waiting.lines);
  waiting.lines.clear();
}

// Three digits.
void AppendThousandths(int64_t number, std::string& line) {
  for (const int64_t unit : {100, 10, 1}) line += static_cast<char>('0' + number / unit % 10);
}

// "2024-05-01T12:00:00.123Z". Calls write a line each, and taking a date apart costs more than the rest of it: so each
// thread keeps the second that it wrote last.
void AppendTime(int64_t unix_ms, std::string& line) {
  thread_local int64_t second = std::numeric_limits<int64_t>::min();
  thread_local std::string text;
  const int64_t now = unix_ms / 1000 - (unix_ms % 1000 < 0 ? 1 : 0);
  if (now != second) {
    text = absl::FormatTime("%Y-%m-%dT%H:%M:%S.", absl::FromUnixSeconds(now), absl::UTCTimeZone());
    second = now;
  }
  line += text;
  AppendThousandths(unix_ms - now * 1000, line);
  line += 'Z';
}

}  // namespace

namespace internal {

std::atomic<Level> level{Level::kInfo};

void Write(Level line_level, std::string_view event, std::span<const Field> fields) {
  std::string line = FormatLine(line_level, event, fields, absl::ToUnixMillis(absl::Now()));
  if (waiting.wanted && line_level < Level::kWarn) {
    waiting.lines.push_back(std::move(line));
    if (std::ssize(waiting.lines) == LinesTogether::kMost) EmitWaiting();
    return;
  }
  EmitWaiting();
  Emit(line_level, std::span(&line, 1));
}

}  // namespace internal

std::string_view LevelName(Level level) { return kLevelNames[static_cast<size_t>(level)]; }

std::optional<Level> ParseLevel(std::string_view name) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (name == kLevelNames[i]) return static_cast<Level>(i);
  }
  return std::nullopt;
}

std::string FormatLine(Level level, std::string_view event, std::span<const Field> fields, int64_t unix_ms) {
  std::string line;
  line.reserve(512);
  line += R"({"time":")";
  AppendTime(unix_ms, line);
  line += R"(","level":")";
  line += LevelName(level);
  line += R"(","event":")";
  line += event;
  line += '"';
  for (const Field& field : fields) {
    line += ",\"";
    line += field.key_.name();
    line += "\":";
    switch (field.kind_) {
      case Field::Kind::kBool:
        line += field.number_ != 0 ? "true" : "false";
        break;
      case Field::Kind::kSigned:
        line += std::to_string(static_cast<int64_t>(field.number_));
        break;
      case Field::Kind::kUnsigned:
        line += std::to_string(field.number_);
        break;
      case Field::Kind::kMillis:
        line += std::to_string(field.number_ / 1000);
        line += '.';
        AppendThousandths(static_cast<int64_t>(field.number_ % 1000), line);
        break;
      case Field::Kind::kText:
        AppendQuoted(field.text_, line);
        break;
    }
  }
  line += '}';
  return line;
}

void SetLogLevel(Level level) { internal::level.store(level, std::memory_order_relaxed); }

void StartLog() {
  Output& output = TheOutput();
  const MutexLock lock(output.mutex);
  if (output.pool != nullptr) return;
  output.pool = std::make_shared<spdlog::details::thread_pool>(kQueuedTexts, 1);
  auto logger = std::make_shared<spdlog::async_logger>("queued", std::make_shared<spdlog::sinks::stderr_sink_mt>(),
                                                       output.pool, spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern("%v");
  logger->set_level(spdlog::level::trace);
  output.logger = std::move(logger);
}

void StopLog(std::chrono::milliseconds limit) {
  Output& output = TheOutput();
  std::shared_ptr<spdlog::details::thread_pool> pool;
  {
    const MutexLock lock(output.mutex);
    if (output.pool == nullptr) return;
    pool = std::move(output.pool);
    output.logger = DirectLogger();
  }
  // The pool's destructor drains the queue and joins, which never ends while no process reads stderr. A process that
  // was told to end must end, so a thread of its own destroys the pool, and `limit` bounds the wait for it.
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> drained = done->get_future();
  std::thread([pool = std::move(pool), done]() mutable {
    pool.reset();
    done->set_value();
  }).detach();
  drained.wait_for(limit);
}

uint64_t DroppedLogLines() {
  Output& output = TheOutput();
  const MutexLock lock(output.mutex);
  return output.pool == nullptr ? 0 : output.pool->overrun_counter();
}

LinesTogether::LinesTogether() { waiting.wanted = true; }

LinesTogether::~LinesTogether() {
  EmitWaiting();
  waiting.wanted = false;
}

std::optional<uint64_t> LogLimiter::Allow(Clock::time_point now) {
  const Clock::rep at = now.time_since_epoch().count();
  Clock::rep next = next_.load(std::memory_order_relaxed);
  // Of several threads that find the interval over, the one that moves it on writes the line.
  if (at < next || !next_.compare_exchange_strong(next, at + interval_.count(), std::memory_order_relaxed)) {
    held_.fetch_add(1, std::memory_order_relaxed);
    return std::nullopt;
  }
  return held_.exchange(0, std::memory_order_relaxed);
}

ScopedLogCapture::ScopedLogCapture() {
  Output& output = TheOutput();
  const MutexLock lock(output.mutex);
  output.capture = new std::vector<std::string>;
}

ScopedLogCapture::~ScopedLogCapture() {
  Output& output = TheOutput();
  const MutexLock lock(output.mutex);
  delete output.capture;
  output.capture = nullptr;
}

std::vector<std::string> ScopedLogCapture::Lines() const {
  Output& output = TheOutput();
  const MutexLock lock(output.mutex);
  return *output.capture;
}

}  // namespace userintent::observe
