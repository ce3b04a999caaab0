// TlsIdentity: the certificate and key that the webhook door shows, from two files that may change while it runs.
//
// Any thread may call Refresh() and RefusalIsNews(); Refresh() blocks for as long as reading two small local files
// takes. libmicrohttpd speaks TLS with GnuTLS, whose types stay behind this header's Material.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"

namespace userintent::webhook {

class TlsIdentity {
 public:
  struct Material;

  // Refuses what ReadCertificateFile and ReadSecretFile refuse, a key with a passphrase, and a key that is not the
  // first certificate's. Error texts begin with --webhook_tls_cert_file or --webhook_tls_key_file and hold no content.
  static absl::StatusOr<std::unique_ptr<TlsIdentity>> Load(std::string certificate_file, std::string key_file);
  ~TlsIdentity();
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;

  // Reads the files again. Whether the certificate changed; on an error the last good pair stays. Connections that are
  // open go on.
  absl::StatusOr<bool> Refresh();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // When the current certificate ends.
  SystemTime not_after() const;

  // What a handshake that begins now shows. Lives as long as this object, because a session may use it to its end.
  const Material& Current() const;

 private:
  TlsIdentity(std::string certificate_file, std::string key_file, std::unique_ptr<Material> material);

  const std::string certificate_file_;
  const std::string key_file_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<std::pair<FileMark, FileMark>> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the files
  // The last one is current. Some KiB for each renewal; a process sees few.
  std::vector<std::unique_ptr<Material>> materials_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::webhook
