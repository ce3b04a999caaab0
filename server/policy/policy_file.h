// PolicyFile: the policy of --policy_file, from a file that may change while the server runs.
//
// Any thread may call anything. Refresh() blocks for as long as reading a small local file takes; the others never wait
// for it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/base/file_mark.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/policy/policy.h"

namespace userintent::policy {

class PolicyFile {
 public:
  // Refuses what ReadPublicFile and Policy::Parse refuse. Error texts begin with --policy_file.
  static absl::StatusOr<std::unique_ptr<PolicyFile>> Load(std::string path);

  PolicyFile(const PolicyFile&) = delete;
  PolicyFile& operator=(const PolicyFile&) = delete;

  // Reads the file again, through whatever symbolic links lead to it now. Whether its content changed; on an error the
  // last good one stays.
  absl::StatusOr<bool> Refresh();

  // Whether the file that the last Refresh() refused was another one than that of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // What a good reading found last.
  struct Content {
    std::shared_ptr<const Policy> policy;  // never null; the same object for as long as the content does not change
    std::string sha256;                    // of the file's bytes, the first 12 hex digits: tells two files apart
    SteadyTime read_at;                    // when the file was last found good
  };
  Content Snapshot() const;

 private:
  explicit PolicyFile(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<FileMark> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  std::string text_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the file
  Content content_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::policy
