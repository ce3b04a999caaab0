// WatchedFiles: what stands in files that may change while the server runs, and is not the policy.
//
// server.cc owns it; the objects live as long as the process serves, and what they hold may be read from any thread. A
// further file is a member here and a line in Watch().
#pragma once

#include <memory>

#include "server/app/file_reloader.h"
#include "server/astra/credentials.h"
#include "server/config/load.h"
#include "server/http/ca_file.h"
#include "server/tls/files.h"
#include "server/webhook/keys.h"
#include "server/webhook/tls_identity.h"

namespace userintent {

struct WatchedFiles {
  WatchedFiles() = default;
  explicit WatchedFiles(config::Loaded& loaded);  // takes them out of it

  // Has all of them read again with `files`; tells the keys of webhooks the client secret, now and then.
  void Watch(FileReloader& files) const;

  std::unique_ptr<astra::Credentials> credentials;
  std::unique_ptr<http::CaFile> authorities;          // Astra's; null: the system's
  tls::Files tls;                                     // null: the listener is in plaintext
  std::unique_ptr<webhook::Keys> webhook_keys;        // null: no webhooks are received
  std::unique_ptr<webhook::TlsIdentity> webhook_tls;  // null: the door has none
};

}  // namespace userintent
