// decode: what one failed RPC says. What cannot be read counts as absent.
//
// Any thread may call anything here.
#pragma once

#include <map>

#include "google/rpc/error_details.pb.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/string_ref.h"
#include "userintent/error.h"

namespace userintent {

// The domain of the ErrorInfo that this service sends; another one is someone else's, a proxy's say.
inline constexpr char kErrorDomain[] = "userintent.v1";

// Copies the gateway's words into `error`.
void ReadErrorInfo(const google::rpc::ErrorInfo& info, Error* error);
void ReadBadRequest(const google::rpc::BadRequest& bad, Error* error);
absl::Duration ToDuration(const google::protobuf::Duration& proto);  // never negative

// Everything but request_id and tries. `trailers`: ClientContext::GetServerTrailingMetadata().
Error Decode(const grpc::Status& status, const std::multimap<grpc::string_ref, grpc::string_ref>& trailers);

// Whether a read that ended with this code, and without a word of the gateway, may simply be made again later.
bool SameCallLater(absl::StatusCode code);

// The pause before the repeat of a read whose error names no delay, after so many tries.
absl::Duration PauseAfter(int tries);

// Lets a read be repeated after UNAVAILABLE that is not the gateway's, unless the trailers forbid it.
void AllowRepeatOfRead(const std::multimap<grpc::string_ref, grpc::string_ref>& trailers, int tries, Error* error);

}  // namespace userintent
