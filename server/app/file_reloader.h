// FileReloader: reads the files again that may change while the server runs, every two seconds.
//
// Belongs to main's thread; server.cc owns it, watched_files.h names the files; what it is given outlives it. Reading
// blocks for as long as some small local files take. The log and userintent_credential_reloads_total tell of each
// change and each refusal; after a refusal the last good content stays in use.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/loop.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"

namespace userintent {

class FileReloader {
 public:
  explicit FileReloader(observe::Metrics& metrics) : metrics_(metrics) {}

  // Before the first poll. The files are read in this order. `file` has Refresh(), which says whether its content
  // changed, and RefusalIsNews(): whether what was refused was another content than that of the refusal before.
  template <typename File>
  void Watch(File& file, observe::Event reloaded, observe::Event refused) {
    steps_.push_back(
        [this, &file, reloaded, refused, reminder = std::make_shared<observe::LogLimiter>(std::chrono::minutes(1))] {
          const absl::StatusOr<bool> changed = file.Refresh();
          Tell(changed, !changed.ok() && file.RefusalIsNews(), *reminder, reloaded, refused);
        });
  }

  // Before the first poll: what else is done each time, in its place of the order. It tells of itself.
  void Also(std::function<void()> run) { steps_.push_back(std::move(run)); }

  // Reads the files again if the last time, or the start, was two seconds ago.
  void Poll(SteadyTime now);

  void ReloadNow();

 private:
  void Tell(const absl::StatusOr<bool>& changed, bool refusal_is_news, observe::LogLimiter& reminder,
            observe::Event reloaded, observe::Event refused);

  observe::Metrics& metrics_;
  std::vector<std::function<void()>> steps_;
  SteadyTime next_ = SteadyClock::now() + kInterval;

  static constexpr std::chrono::seconds kInterval{2};
};

}  // namespace userintent
