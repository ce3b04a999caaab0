// log: one JSON object a line on stderr, built so that personal data cannot get into it by accident.
//
//   Log(Level::kInfo, "server_started", {{"address", SafeText(address)}, {"shards", 2}, {"tls", true}});
//   {"time":"2024-05-01T12:00:00.000Z","level":"info","event":"server_started","address":"127.0.0.1:1","shards":2,...}
//
// Three gates, two of them at compile time: event names are literals, keys are literals out of the list below, and a
// text value is either a literal or was declared safe at the call by SafeText(). A std::string does not convert.
// Texts are escaped to printable ASCII and cut, so no value can break, forge or flood a line.
//
// Any thread may call anything here, except that StartLog, StopLog and ScopedLogCapture belong to main and to tests.
// After StartLog a line is handed to a writer thread and never waits for stderr: when the reader of stderr falls
// behind, the oldest lines are dropped and counted. Before StartLog and after StopLog lines are written directly.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "server/base/text.h"
#include "server/observe/level.h"

namespace userintent::observe {

// Every key that a line may hold besides time, level and event; each is written somewhere in server/, or log_test
// fails. No key may stand for a field of a request, a caller's metadata, a body, a header, or anything derived from
// personal data.
inline constexpr std::string_view kLogKeys[] = {
    "address",           // a socket address of this process or of the upstream, never an end user's
    "asker",             // fixed word: on whose behalf Astra is read
    "astra_request_id",  // of Astra's answer, as the caller is told it
    "attempt_id",        // the gateway's own random id of one POST
    "attempts",          // POSTs of one request
    "begin_ms",          // until the ledger let a call begin or answered it
    "caller",            // the identity out of the client certificate
    "component",         // fixed word: rpc, intent, ledger, astra, http, ...
    "connections",       // of callers
    "count",
    "detail",       // fixed text
    "epoch",        // number of a replica's start
    "error",        // fixed text, or the text of a library that never saw a request
    "file",         // path of a file that the configuration names, or of our source
    "finish_ms",    // until the ledger had recorded an outcome
    "flag",         // name of a configuration flag
    "http_status",  // of Astra's answer
    "in_flight",    // calls
    "latency_ms",   // of one POST
    "line",         // in our source, or in a library's
    "method",       // of our service
    "origin",       // scheme, host and port of the upstream
    "peer",         // socket address of a caller's host or of a stranger's, never an end user's
    "queue_ms",     // until a slot for an exchange with Astra was free
    "reason",       // name of an ErrorReason
    "recovered",    // rows turned from SENDING into UNKNOWN at start
    "replayed",     // answered from the ledger
    "request_id",   // the caller's random id
    "result",       // fixed word: what became of a TLS handshake
    "rows",
    "rule",    // name of a rule in the policy file
    "sent",    // no, maybe, yes
    "sha256",  // of a file that is no secret; the first 12 digits
    "shards",
    "signal",      // name or number of a signal
    "state",       // fixed word
    "suppressed",  // lines that a LogLimiter left out
    "tls",
    "total_ms",     // of one call
    "trace_id",     // of the caller's trace, or of one that was begun here
    "upstream_ms",  // of all POSTs of one call
    "version",      // of this program or of a library
    "warning",      // fixed text
    "way",          // fixed word: what proved an outcome
};

// The name of what happened: a literal of lower-case letters, digits and underscores.
class Event {
 public:
  template <size_t N>
  consteval Event(const char (&name)[N]) : name_(name, N - 1) {  // NOLINT: implicit on purpose
    if (name_.empty()) throw "an event needs a name";
    for (char c : name_) {
      if (!IsLower(c) && !IsDigit(c) && c != '_') throw "events are named like_this";
    }
  }
  constexpr std::string_view name() const { return name_; }

 private:
  std::string_view name_;
};

class Key {
 public:
  template <size_t N>
  consteval Key(const char (&name)[N]) : name_(name, N - 1) {  // NOLINT: implicit on purpose
    if (std::find(std::begin(kLogKeys), std::end(kLogKeys), name_) == std::end(kLogKeys)) throw "not in kLogKeys";
  }
  constexpr std::string_view name() const { return name_; }

 private:
  std::string_view name_;
};

// Text that is the same in every build of the program: a literal.
class FixedText {
 public:
  template <size_t N>
  consteval FixedText(const char (&text)[N]) : text_(text, N - 1) {}  // NOLINT: implicit on purpose
  constexpr std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

// Text made at run time, of which the writer of the line says: holds no personal data, no secret and no byte of a body.
// Lives no longer than the call of Log.
class SafeText {
 public:
  explicit constexpr SafeText(std::string_view text) : text_(text) {}
  constexpr std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

// One key with its value; cheap to build, so that a line below the level costs almost nothing.
class Field {
 public:
  template <std::integral T>
  constexpr Field(Key key, T value) : key_(key) {
    if constexpr (std::same_as<T, bool>) {
      kind_ = Kind::kBool;
      number_ = value ? 1 : 0;
    } else if constexpr (std::is_signed_v<T>) {
      kind_ = Kind::kSigned;
      number_ = static_cast<uint64_t>(static_cast<int64_t>(value));
    } else {
      kind_ = Kind::kUnsigned;
      number_ = value;
    }
  }
  // In milliseconds, with three places.
  constexpr Field(Key key, std::chrono::microseconds time)
      : key_(key), kind_(Kind::kMillis), number_(static_cast<uint64_t>(std::max<int64_t>(time.count(), 0))) {}
  constexpr Field(Key key, FixedText text) : key_(key), kind_(Kind::kText), text_(text.text()) {}
  constexpr Field(Key key, SafeText text) : key_(key), kind_(Kind::kText), text_(text.text()) {}

 private:
  friend std::string FormatLine(Level, std::string_view, std::span<const Field>, int64_t);
  enum class Kind : uint8_t { kBool, kSigned, kUnsigned, kMillis, kText };

  Key key_;
  Kind kind_ = Kind::kText;
  uint64_t number_ = 0;
  std::string_view text_;
};

namespace internal {
extern std::atomic<Level> level;
void Write(Level level, std::string_view event, std::span<const Field> fields);
}  // namespace internal

inline bool LogEnabled(Level level) { return level >= internal::level.load(std::memory_order_relaxed); }

inline void Log(Level level, Event event, std::initializer_list<Field> fields = {}) {
  if (LogEnabled(level)) internal::Write(level, event.name(), {fields.begin(), fields.size()});
}
// For a line whose fields are not always the same.
inline void Log(Level level, Event event, std::span<const Field> fields) {
  if (LogEnabled(level)) internal::Write(level, event.name(), fields);
}

// The line without its newline; `unix_ms` is its time. For Log and tests.
std::string FormatLine(Level level, std::string_view event, std::span<const Field> fields, int64_t unix_ms);
inline std::string FormatLine(Level level, std::string_view event, std::initializer_list<Field> fields,
                              int64_t unix_ms) {
  return FormatLine(level, event, std::span<const Field>(fields.begin(), fields.size()), unix_ms);
}

// The level is info until it is set.
void SetLogLevel(Level level);

// Starts the writer thread. Once, before other threads log.
void StartLog();
// Writes what waits, but gives up after `limit`, and ends the writer thread. No other thread logs any more.
void StopLog(std::chrono::milliseconds limit = std::chrono::seconds(2));
// Lines dropped because stderr was too slow, since StartLog; at least, as lines that went together count as one.
uint64_t DroppedLogLines();

// While one lives, its thread's lines wait for each other, and go to the writer thread together: a busy thread wakes
// that thread once, and not for each line. They go when it ends, when there are kMost of them, and before a line of
// level warn. One at a time in a thread; belongs to that thread.
class LinesTogether {
 public:
  static constexpr int kMost = 16;

  LinesTogether();
  ~LinesTogether();
  LinesTogether(const LinesTogether&) = delete;
  LinesTogether& operator=(const LinesTogether&) = delete;
};

// Lets one line through an interval, for events that may come by the thousand. Any thread.
//
//   static LogLimiter limiter(std::chrono::seconds(1));
//   if (auto held = limiter.Allow()) Log(Level::kWarn, "upstream_failed", {{"suppressed", *held}});
class LogLimiter {
 public:
  using Clock = std::chrono::steady_clock;

  explicit constexpr LogLimiter(Clock::duration interval) : interval_(interval) {}

  // Empty: do not write the line. Otherwise: write it, with the number of lines left out since the last one.
  std::optional<uint64_t> Allow(Clock::time_point now = Clock::now());

 private:
  const Clock::duration interval_;
  std::atomic<Clock::rep> next_{std::numeric_limits<Clock::rep>::min()};
  std::atomic<uint64_t> held_{0};
};

// Catches every line of the process from its construction to its destruction instead of writing it. For tests.
class ScopedLogCapture {
 public:
  ScopedLogCapture();
  ~ScopedLogCapture();
  ScopedLogCapture(const ScopedLogCapture&) = delete;
  ScopedLogCapture& operator=(const ScopedLogCapture&) = delete;

  std::vector<std::string> Lines() const;  // without newlines
};

}  // namespace userintent::observe
