#include "server/rpc/memory_watch.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <string>

#include "absl/strings/numbers.h"
#include "server/observe/log.h"
#include "server/rpc/connection_watch.h"

// jemalloc's, where the program is linked to it.
extern "C" __attribute__((weak)) int mallctl(const char* name, void* old_value, size_t* old_size, void* value,
                                             size_t size);

namespace userintent::rpc {
namespace {

constexpr auto kPurgeEvery = std::chrono::seconds(1);

// A file of one number; 0: there is none, or it says "max" or a number that means so.
int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  std::string text;
  int64_t number = 0;
  constexpr int64_t kNoLimit = int64_t{1} << 50;
  if (!(file >> text) || !absl::SimpleAtoi(text, &number) || number >= kNoLimit) return 0;
  return number;
}

// Memory that was freed stays with the allocator for seconds, and may be had again at once.
void Purge() {
  constexpr char kAllArenas[] = "arena.4096.purge";  // MALLCTL_ARENAS_ALL
  if (mallctl != nullptr) mallctl(kAllArenas, nullptr, nullptr, nullptr, 0);
}

}  // namespace

int64_t DefaultMemoryMark() {
  int64_t limit = NumberIn("/sys/fs/cgroup/memory.max");
  if (limit == 0) limit = NumberIn("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  return limit / 10 * 8;
}

MemoryWatch::MemoryWatch(int64_t mark) : mark_(mark) {
  if (on()) statm_ = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

MemoryWatch::~MemoryWatch() {
  if (statm_ >= 0) close(statm_);
}

int64_t MemoryWatch::Resident() const {
  char text[128];
  const ssize_t size = pread(statm_, text, sizeof text, 0);
  if (size <= 0) return 0;
  // The second of several numbers, in pages.
  const char* const end = text + size;
  const char* const second = std::find(text, text + size, ' ');
  int64_t pages = 0;
  if (second == end || std::from_chars(second + 1, end, pages).ec != std::errc{}) return 0;
  static const int64_t page = sysconf(_SC_PAGESIZE);
  return pages * page;
}

bool MemoryWatch::Look(SteadyTime now) {
  if (!on()) return false;
  int64_t resident = Resident();
  if (resident <= mark_) return false;
  if (now >= next_purge_) {
    next_purge_ = now + kPurgeEvery;
    Purge();
    resident = Resident();
    if (resident <= mark_) return false;
  }
  const int64_t let_go = EndLargest(resident - mark_);
  static observe::LogLimiter limiter(std::chrono::seconds(10));
  if (const auto held = limiter.Allow()) {
    observe::Log(observe::Level::kError, "memory_short",
                 {{"detail", let_go > 0 ? observe::FixedText("connections that hold most are ended")
                                        : observe::FixedText("no connection holds much")},
                  {"suppressed", *held}});
  }
  return true;
}

}  // namespace userintent::rpc
