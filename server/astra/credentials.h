// Credentials: the client id and secret that the gateway shows Astra (HTTP Basic), read from two files.
//
// Any thread may call anything. One object serves the whole process and outlives every RestClient. Refresh() blocks for
// as long as reading two small local files takes; Snapshot() never waits for it.
//
// To change credentials, replace the files by renaming new ones over them. Between two renames a Refresh() may pair an
// old id with a new secret; the next one, after the second rename, puts that right.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"
#include "server/base/secret.h"

namespace userintent::astra {

struct BasicAuth {
  Secret header_value;    // of Authorization: "Basic ..."
  std::string client_id;  // no secret: it is a part of the links to Astra's pages
  Secret client_secret;   // which Astra signs its webhooks with
  uint64_t number = 1;    // each pair that this process comes to know has a higher one than those before
};

class Credentials {
 public:
  // Refuses what ReadSecretFile refuses, control characters in either, and a colon in the client id (it would end
  // there). Error texts name the flag, --astra_client_id_file or --astra_client_secret_file, and never any content;
  // there is a line for each file that is wrong. An empty path is a flag that is missing.
  static absl::StatusOr<std::unique_ptr<Credentials>> Load(std::string client_id_file, std::string client_secret_file);

  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // Reads the files again. Whether the credentials changed; on an error the last good ones stay.
  absl::StatusOr<bool> Refresh();

  // The same if the files were touched since the last reading: two stat() calls where they were not. False on an error.
  bool RefreshIfTouched();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own. A refusal that follows a success is always news.
  bool RefusalIsNews() const;

  // Never null. The same object for as long as the credentials do not change.
  std::shared_ptr<const BasicAuth> Snapshot() const;

 private:
  Credentials(std::string client_id_file, std::string client_secret_file, std::shared_ptr<const BasicAuth> auth);

  const std::string client_id_file_;
  const std::string client_secret_file_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  using Marks = std::pair<FileMark, FileMark>;
  Marks MarksNow() const { return {MarkOf(client_id_file_), MarkOf(client_secret_file_)}; }

  RefusedFiles<Marks> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  Marks read_ ABSL_GUARDED_BY(refresh_mutex_);  // what the last Refresh() read
  mutable Mutex mutex_;                         // never held while reading the files
  std::shared_ptr<const BasicAuth> auth_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::astra
