// A target: one function that takes any bytes, gives them to code of the server, and holds what comes back against an
// oracle of its own. Each NAME_fuzz.cc defines one.
//
// It runs in two programs. Under libFuzzer (fuzz_main.cc, the CMake preset `fuzz`) inputs are made up; in the normal
// build (replay_main.cc) every file of corpus/NAME is a test. Both also hold the time that the server's code took
// against kMostCpu. One thread. Inputs may be whatever somebody sends, so no message of a target quotes them.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace userintent::fuzz {

// Defined by the target. Returns, or calls Wrong().
void Target(std::string_view input);

// Defined by the program: an input was found for which the claim is false. Under libFuzzer it ends the process, so that
// the input is kept; in a replay the test fails.
[[noreturn]] void Wrong(const char* claim);

inline void Check(bool holds, const char* claim) {
  if (!holds) Wrong(claim);
}

// CPU time of this thread, so that a busy machine does not count.
inline std::chrono::nanoseconds ThreadCpu() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

// What the server's code has taken of the present input.
inline std::chrono::nanoseconds server_cpu{0};

// Runs code of the server, which is what the limit on CPU time speaks of; the oracle is outside.
template <typename F>
auto Timed(F&& run) {
  struct Clock {
    std::chrono::nanoseconds from = ThreadCpu();
    ~Clock() { server_cpu += ThreadCpu() - from; }
  } clock;
  return std::forward<F>(run)();
}

// No input may keep a core for longer than 10 ms. Sanitizers, and the counters of libFuzzer, slow code down; what an
// input takes for certain is measured in the normal build.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define USERINTENT_FUZZ_SLOWED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define USERINTENT_FUZZ_SLOWED 1
#endif
#ifdef USERINTENT_FUZZ_SLOWED
inline constexpr std::chrono::milliseconds kMostCpu{100};
#else
inline constexpr std::chrono::milliseconds kMostCpu{10};
#endif
inline constexpr const char* kTooSlow = "an input takes at most 10 ms of CPU time (under sanitizers 100 ms)";

// Runs the target, and says what the server's code took: the least of three runs, where the first took too long.
inline std::chrono::nanoseconds RunTarget(std::string_view input) {
  auto least = std::chrono::nanoseconds::max();
  for (int run = 0; run < 3 && least > kMostCpu; ++run) {
    server_cpu = {};
    Target(input);
    least = std::min(least, server_cpu);
  }
  return least;
}

// Takes an input apart from its front. Where it is at its end, it gives zeros and empty texts.
class Input {
 public:
  explicit Input(std::string_view bytes) : left_(bytes) {}

  uint8_t Byte() {
    const std::string_view one = Text(1);
    return one.empty() ? uint8_t{0} : static_cast<uint8_t>(one[0]);
  }
  bool Bit() { return (Byte() & 1) != 0; }
  uint64_t Number(int bytes) {  // big-endian
    uint64_t number = 0;
    for (; bytes > 0; --bytes) number = number << 8 | Byte();
    return number;
  }
  std::string_view Text(size_t most) {
    const std::string_view text = left_.substr(0, most);
    left_.remove_prefix(text.size());
    return text;
  }
  // Up to the separator, which is taken too; or all that is left.
  std::string_view Until(char separator) {
    const std::string_view text = left_.substr(0, left_.find(separator));
    left_.remove_prefix(std::min(text.size() + 1, left_.size()));
    return text;
  }
  std::string_view Rest() { return std::exchange(left_, {}); }
  bool empty() const { return left_.empty(); }

 private:
  std::string_view left_;
};

}  // namespace userintent::fuzz
