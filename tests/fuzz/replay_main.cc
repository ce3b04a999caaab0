// A target in the normal build: NAME-replay DIRECTORY... runs it on every file of the directories, each a test.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

struct Broken {
  const char* claim;
};

class Replay : public testing::Test {
 public:
  explicit Replay(std::filesystem::path file) : file_(std::move(file)) {}

  void TestBody() override {
    std::ifstream stream(file_, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    ASSERT_TRUE(stream.good()) << "the file cannot be read";
    // Of exactly that size, so that AddressSanitizer sees a look behind its end.
    const std::vector<char> input(bytes.begin(), bytes.end());
    try {
      const auto took = RunTarget({input.data(), input.size()});
      EXPECT_LE(took, kMostCpu) << kTooSlow << "; this one took " << took.count() / 1000 << " us";
    } catch (const Broken& broken) {
      FAIL() << "this does not hold: " << broken.claim;
    }
  }

 private:
  const std::filesystem::path file_;
};

}  // namespace

void Wrong(const char* claim) { throw Broken{claim}; }

}  // namespace userintent::fuzz

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  int files = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      if (!entry.is_regular_file()) continue;
      ++files;
      testing::RegisterTest("Replay", entry.path().filename().c_str(), nullptr, nullptr, __FILE__, __LINE__,
                            [path = entry.path()] { return new userintent::fuzz::Replay(path); });
    }
  }
  if (files == 0) {
    std::fprintf(stderr, "usage: %s DIRECTORY..., with files in it\n", argv[0]);
    return 2;
  }
  return RUN_ALL_TESTS();
}
