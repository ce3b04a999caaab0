#include "server/base/crash_point.h"

namespace userintent {

constinit std::atomic<CrashHook::Function> CrashHook::installed_{nullptr};

}  // namespace userintent
