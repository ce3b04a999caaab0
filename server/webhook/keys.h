// Keys: what a webhook may be signed with (contract section 8): the client secret, the one before it for 24 hours after
// it was replaced, and the one in --webhook_previous_secret_file; or the one in --webhook_secret_file alone.
//
// Astra signs with the client secret, and goes on with the old one for a while after a rotation. The one before is kept
// in memory only, and only for what comes in; nothing is ever sent with it.
//
// Any thread may call anything. Refresh() blocks for as long as reading two small local files takes; Now() never waits
// for it.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/file_mark.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/base/secret.h"

namespace userintent::webhook {

enum class KeyKind { kCurrent, kPrevious };
inline constexpr std::string_view kKeyNames[] = {"current", "previous"};

class Keys {
 public:
  struct Files {
    std::string secret;           // of --webhook_secret_file; empty: the client secret is the key
    std::string previous_secret;  // of --webhook_previous_secret_file; empty: none
  };
  // The keys at one moment; the current one first.
  struct Ring {
    std::vector<Secret> secrets;
    KeyKind KindOf(size_t place) const { return place == 0 ? KeyKind::kCurrent : KeyKind::kPrevious; }
  };

  // Refuses what ReadSecretFile refuses; the status has a line for each file that is wrong, with its flag.
  static absl::StatusOr<std::unique_ptr<Keys>> Load(Files files);

  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;

  // The client secret as it is in use, told again and again; that it became another one is noticed here. Ignored where
  // --webhook_secret_file is the key.
  void SetClientSecret(const Secret& secret, SteadyTime now);

  // Reads the files again. Whether one changed; on an error the last good ones stay.
  absl::StatusOr<bool> Refresh();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // Empty before there is a current key.
  Ring Now(SteadyTime now) const;

 private:
  struct Read {
    Secret own, previous;  // empty: no file
  };
  explicit Keys(Files files, Read read) : files_(std::move(files)), read_(std::move(read)) {}

  static absl::StatusOr<Read> ReadFiles(const Files& files);

  static constexpr std::chrono::hours kKept{24};

  const Files files_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<std::pair<FileMark, FileMark>> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the files
  Read read_ ABSL_GUARDED_BY(mutex_);
  Secret client_ ABSL_GUARDED_BY(mutex_);    // empty before it is told
  Secret replaced_ ABSL_GUARDED_BY(mutex_);  // the client secret before, empty: none
  SteadyTime replaced_at_ ABSL_GUARDED_BY(mutex_){};
};

}  // namespace userintent::webhook
