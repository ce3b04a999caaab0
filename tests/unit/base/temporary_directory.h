// A directory of its own for one test, removed with everything in it. One thread.
#pragma once

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

#include "gtest/gtest.h"

namespace userintent {

class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_(testing::TempDir() + "/userintent.XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) path_.clear();
    EXPECT_FALSE(path_.empty());
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }

  std::string Path(std::string_view name) const { return path_ + "/" + std::string(name); }

  // Writes a new file and renames it over the old one; returns the path.
  std::string Write(std::string_view name, std::string_view content, mode_t mode = 0600) const {
    const std::string path = Path(name);
    const std::string fresh = path + ".new";
    std::ofstream(fresh, std::ios::binary) << content;
    EXPECT_EQ(chmod(fresh.c_str(), mode), 0);
    std::filesystem::rename(fresh, path);
    return path;
  }

 private:
  std::string path_;
};

}  // namespace userintent
