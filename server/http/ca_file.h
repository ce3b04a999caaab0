// CaFile: the authorities that the upstream's certificate must lead to, from a file that may change while clients run.
//
// Any thread may call anything. One object serves the whole process and outlives every client. Refresh() blocks for as
// long as reading a small local file takes; Snapshot() never waits for it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"

namespace userintent::http {

class CaFile {
 public:
  // Refuses what ReadCertificateFile refuses. Error texts begin with --astra_ca_file and hold no content.
  static absl::StatusOr<std::unique_ptr<CaFile>> Load(std::string path);

  CaFile(const CaFile&) = delete;
  CaFile& operator=(const CaFile&) = delete;

  // Reads the file again. Whether its content changed; on an error the last good one stays. Connections that are open
  // stay open until they have grown old; new ones are judged by what Snapshot() says then.
  absl::StatusOr<bool> Refresh();

  // Whether the file that the last Refresh() refused was another one than that of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // Never null. The same object for as long as the content does not change.
  std::shared_ptr<const Certificates> Snapshot() const;

 private:
  CaFile(std::string path, std::shared_ptr<const Certificates> certificates);

  const std::string path_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<FileMark> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the file
  std::shared_ptr<const Certificates> certificates_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::http
