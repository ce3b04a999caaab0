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

}  // namespace userintent
