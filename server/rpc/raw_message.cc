#include "server/rpc/raw_message.h"

#include <cstdint>
#include <string_view>

namespace userintent::rpc {

intent::WireProblem FromRaw(grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::Slice slice;
  if (!bytes.TrySingleSlice(&slice).ok() && !bytes.DumpToSingleSlice(&slice).ok()) {
    return intent::WireProblem::kMalformed;
  }
  bytes.Clear();
  return intent::ParseStrict(std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()), message);
}

grpc::ByteBuffer ToRaw(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  (void)message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return {&slice, 1};
}

}  // namespace userintent::rpc
