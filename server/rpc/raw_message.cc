#include "server/rpc/raw_message.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "server/base/wipe.h"
#include "server/intent/held_request.h"

namespace userintent::rpc {
namespace {

// Slices are counted references to memory that nobody but this call looks at: a message's bytes are in no other one.
void WipeSlice(const grpc::Slice& slice) { WipeBytes(const_cast<uint8_t*>(slice.begin()), slice.size()); }

// In one piece; the pieces that it was put together from are overwritten.
bool TakeSingleSlice(grpc::ByteBuffer& bytes, grpc::Slice* slice) {
  if (bytes.TrySingleSlice(slice).ok()) return true;
  std::vector<grpc::Slice> pieces;
  if (!bytes.DumpToSingleSlice(slice).ok() || !bytes.Dump(&pieces).ok()) return false;
  for (const grpc::Slice& piece : pieces) WipeSlice(piece);
  return true;
}

}  // namespace

intent::WireProblem FromRaw(grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::Slice slice;
  if (!TakeSingleSlice(bytes, &slice)) return intent::WireProblem::kMalformed;
  bytes.Clear();
  const intent::WireProblem problem =
      intent::ParseStrict(std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()), message);
  WipeSlice(slice);
  if (problem != intent::WireProblem::kNone) {
    if (auto* person = dynamic_cast<v1::CreateUserIntentRequest*>(message)) intent::WipePerson(*person);
  }
  return problem;
}

grpc::ByteBuffer ToRaw(const google::protobuf::Message& message) {
  grpc::Slice slice(message.ByteSizeLong());
  (void)message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return {&slice, 1};
}

}  // namespace userintent::rpc
