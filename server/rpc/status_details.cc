#include "server/rpc/status_details.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/time.h"

namespace userintent::rpc {
namespace {

// Rounded up to a millisecond, and at least one: a loop that waits exactly this long must not come too early.
absl::Duration AtLeastMillis(absl::Duration d) {
  return std::max(absl::Ceil(d, absl::Milliseconds(1)), absl::Milliseconds(1));
}

// As PackFrom, but a map's entries come in order: the same error is the same bytes. Nothing here can fail: the messages
// have no required field, and the string takes all.
void Pack(const google::protobuf::Message& detail, google::protobuf::Any* any) {
  any->set_type_url(absl::StrCat("type.googleapis.com/", detail.GetTypeName()));
  google::protobuf::io::StringOutputStream bytes(any->mutable_value());
  google::protobuf::io::CodedOutputStream out(&bytes);
  out.SetSerializationDeterministic(true);
  (void)detail.SerializeToCodedStream(&out);
}

}  // namespace

RpcError ToRpcError(const usecase::CallError& error) {
  const usecase::ErrorRow& row = usecase::RowOf(error.reason);
  google::rpc::Status status;
  status.set_code(static_cast<int>(row.code));
  status.set_message(std::string(error.message.empty() ? row.message : error.message));

  google::rpc::ErrorInfo info;
  usecase::FillErrorInfo(error, &info);
  Pack(info, status.add_details());

  switch (error.reason) {
    case v1::ERROR_REASON_FIELD_INVALID: {
      google::rpc::BadRequest bad;
      size_t size = status.ByteSizeLong() + status.message().size();
      for (const intent::Violation& violation : error.violations) {
        // The texts are bounded so that all of them fit (tested); this keeps the promise should one grow.
        size += violation.field.size() + violation.description.size() + 8;
        if (size > kMaxErrorBytes - 128) break;
        auto* out = bad.add_field_violations();
        out->set_field(std::string(violation.field));
        out->set_description(std::string(violation.description));
      }
      Pack(bad, status.add_details());
      break;
    }
    case v1::ERROR_REASON_PERSON_EXISTS: {
      google::rpc::ResourceInfo resource;
      resource.set_resource_type("astra.UserIntent");
      resource.set_resource_name(error.existing_intent_id);
      Pack(resource, status.add_details());
      break;
    }
    case v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED: {
      google::rpc::QuotaFailure quota;
      auto* violation = quota.add_violations();
      violation->set_subject("email");
      violation->set_description("Attempts to create a User Intent for one e-mail address, for ever.");
      Pack(quota, status.add_details());
      break;
    }
    default:
      break;
  }
  if (row.retry_info) {
    google::rpc::RetryInfo retry;
    SetDuration(AtLeastMillis(error.retry_after), retry.mutable_retry_delay());
    Pack(retry, status.add_details());
  }

  RpcError converted;
  converted.pushback_never = !row.retry_info;
  converted.status =
      grpc::Status(static_cast<grpc::StatusCode>(row.code), status.message(), status.SerializeAsString());
  return converted;
}

}  // namespace userintent::rpc
