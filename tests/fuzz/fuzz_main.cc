// A target under libFuzzer, which has the main().
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/target.h"

namespace userintent::fuzz {

void Wrong(const char* claim) {
  std::fprintf(stderr, "WRONG: this does not hold: %s\n", claim);
  std::abort();
}

}  // namespace userintent::fuzz

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer calls it by this name.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using userintent::fuzz::RunTarget;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (RunTarget(input) > userintent::fuzz::kMostCpu) userintent::fuzz::Wrong(userintent::fuzz::kTooSlow);
  return 0;
}
