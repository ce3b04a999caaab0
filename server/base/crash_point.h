// CrashPoint: a place in the code, by name, at which a crash test may end the process.
//
// Any thread may pass one. In production no hook exists: a point costs one relaxed load and a branch that is never
// taken, and nothing in the program can install a hook, because the only code that does (InstallCrashHook) is in
// tests/crash and is linked into no other program. It must be installed before the first thread starts.
#pragma once

#include <atomic>
#include <string_view>

namespace userintent {

class CrashHook {
 public:
  using Function = void (*)(std::string_view name);

  // Null in production. For parts that take the hook as a setting.
  static Function Get() { return installed_.load(std::memory_order_relaxed); }

 private:
  friend void InstallCrashHook(Function hook);  // tests/crash/crash_*.cc

  static std::atomic<Function> installed_;
};

inline void CrashPoint(std::string_view name) {
  if (const CrashHook::Function hook = CrashHook::Get(); hook != nullptr) [[unlikely]]
    hook(name);
}

}  // namespace userintent
