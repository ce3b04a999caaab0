// tls: channel credentials out of files, checked before they are used.
//
// gRPC's own FileWatcherCertificateProvider is not used: in gRPC 1.51 it installs a certificate and a key that do not
// belong together, which breaks every handshake until the next change, and it is experimental.
//
// Any thread may call anything here.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "userintent/client.h"

namespace userintent {

// Another value when a file was replaced or rewritten. (Of a file that is missing: zeros.)
using TlsStamp = std::vector<std::tuple<ino_t, int64_t, int64_t>>;
TlsStamp StampOf(const TlsFiles& files);

// INVALID_ARGUMENT when the files cannot be used: one is missing or empty, or the key is not the certificate's.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> LoadCredentials(const TlsFiles& files);

}  // namespace userintent
