#include "server/rpc/frame_guard.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

namespace userintent::rpc {
namespace {

constexpr size_t kPreface = 24;
constexpr size_t kHead = 9;
// A frame of DATA with less, which is not the last one, is as good as empty; so is one of CONTINUATION.
constexpr uint32_t kCrumb = 16;

constexpr uint8_t kData = 0;
constexpr uint8_t kHeaders = 1;
constexpr uint8_t kRstStream = 3;
constexpr uint8_t kContinuation = 9;

constexpr uint8_t kEndStream = 1;
constexpr uint8_t kEndHeaders = 4;

uint32_t SizeOf(const uint8_t* head) { return uint32_t{head[0]} << 16 | uint32_t{head[1]} << 8 | head[2]; }

uint32_t StreamOf(const uint8_t* head) {
  return (uint32_t{head[5]} << 24 | uint32_t{head[6]} << 16 | uint32_t{head[7]} << 8 | head[8]) & 0x7fffffff;
}

}  // namespace

std::string_view TextOf(FrameGuard::Fault fault) {
  switch (fault) {
    case FrameGuard::Fault::kStreams:
      return "more calls at once than it was told";
    case FrameGuard::Fault::kHeaderBlock:
      return "a header block without end";
    case FrameGuard::Fault::kUnfinished:
      return "too many bytes of requests that do not end";
    case FrameGuard::Fault::kResets:
      return "calls that are reset at once";
    case FrameGuard::Fault::kIdleFrames:
      return "a flood of frames that ask for nothing";
    case FrameGuard::Fault::kNone:
      break;
  }
  return "";
}

bool FrameGuard::Allowance::Take(SteadyTime now) {
  if (filled_ != SteadyTime{} && now > filled_) {
    const std::chrono::duration<double> since = now - filled_;
    left_ = std::min(most_, left_ + since.count() * per_second_);
  }
  filled_ = now;
  if (left_ < 1) return false;
  left_ -= 1;
  return true;
}

void FrameGuard::Allowance::Add(double more) { left_ = std::min(most_, left_ + more); }

const uint8_t* FrameGuard::Heads::Next(std::string_view& bytes) {
  const size_t skipped = std::min(skip_, bytes.size());
  skip_ -= skipped;
  bytes.remove_prefix(skipped);
  if (bytes.empty()) return nullptr;
  const size_t taken = std::min(kHead - have_, bytes.size());
  std::memcpy(head_ + have_, bytes.data(), taken);
  bytes.remove_prefix(taken);
  have_ += taken;
  if (have_ < kHead) return nullptr;
  have_ = 0;
  skip_ = SizeOf(head_);
  return head_;
}

FrameGuard::FrameGuard(const FrameLimits& limits, std::atomic<int64_t>& all_unfinished)
    : limits_(limits),
      all_unfinished_(all_unfinished),
      received_(kPreface),
      sent_(0),
      resets_(limits.resets, limits.resets_per_second),
      idle_(limits.idle_frames, limits.idle_frames_per_second) {}

FrameGuard::~FrameGuard() { all_unfinished_.fetch_sub(told_, std::memory_order_relaxed); }

FrameGuard::Fault FrameGuard::OnReceived(std::string_view bytes, SteadyTime now) {
  while (fault_ == Fault::kNone) {
    const uint8_t* const head = received_.Next(bytes);
    if (head == nullptr) break;
    fault_ = OnFrame(head, now);
  }
  if (fault_ == Fault::kNone) fault_ = Settle(now);
  return fault_;
}

FrameGuard::Fault FrameGuard::OnFrame(const uint8_t* head, SteadyTime now) {
  const uint32_t size = SizeOf(head);
  const uint32_t stream = StreamOf(head);
  const uint8_t flags = head[4];
  switch (head[3]) {
    case kHeaders:
      return OnHeaders(stream, size, flags, now);
    case kContinuation:
      return OnContinuation(size, flags, now);
    case kData:
      return OnData(stream, size, flags, now);
    case kRstStream:
      return OnReset(stream, now);
    default:
      return OnIdleFrame(now);
  }
}

FrameGuard::Fault FrameGuard::OnHeaders(uint32_t stream, uint32_t size, uint8_t flags, SteadyTime now) {
  in_block_ = (flags & kEndHeaders) == 0;
  block_bytes_ = size;
  block_begun_ = now;
  if (block_bytes_ > limits_.header_block) return Fault::kHeaderBlock;
  auto found = streams_.find(stream);
  const bool trailers = found != streams_.end();
  if (!trailers) {
    // Numbers only grow; one that is over, or the server's, begins nothing.
    if (stream <= last_stream_ || stream % 2 == 0) return OnIdleFrame(now);
    last_stream_ = stream;
    if (streams() >= limits_.streams) return Fault::kStreams;
    found = streams_.emplace(stream, Stream{}).first;
    begun_.push_back(stream);
    idle_.Add(limits_.idle_frames_per_call);
  }
  if ((flags & kEndStream) != 0) EndOfRequest(found);
  // No client of gRPC sends trailers. libgrpc skips all but the first ones of a call, so they could go on for ever.
  return trailers ? OnIdleFrame(now) : Fault::kNone;
}

FrameGuard::Fault FrameGuard::OnContinuation(uint32_t size, uint8_t flags, SteadyTime now) {
  block_bytes_ += size;
  if (block_bytes_ > limits_.header_block) return Fault::kHeaderBlock;
  if ((flags & kEndHeaders) != 0) in_block_ = false;
  return size < kCrumb ? OnIdleFrame(now) : Fault::kNone;
}

FrameGuard::Fault FrameGuard::OnData(uint32_t stream, uint32_t size, uint8_t flags, SteadyTime now) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || found->second.peer_ended) return OnIdleFrame(now);
  if ((flags & kEndStream) != 0) {
    EndOfRequest(found);
    return Fault::kNone;
  }
  found->second.bytes += size;
  unfinished_ += size;
  if (unfinished_ > limits_.unfinished) return Fault::kUnfinished;
  return size < kCrumb ? OnIdleFrame(now) : Fault::kNone;
}

FrameGuard::Fault FrameGuard::OnReset(uint32_t stream, SteadyTime now) {
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return OnIdleFrame(now);
  const bool early = !found->second.answered;
  Forget(found);
  return early && !resets_.Take(now) ? Fault::kResets : Fault::kNone;
}

void FrameGuard::EndOfRequest(Streams::iterator stream) {
  stream->second.peer_ended = true;
  unfinished_ -= std::exchange(stream->second.bytes, 0);
  if (stream->second.answered) streams_.erase(stream);
}

void FrameGuard::Forget(Streams::iterator stream) {
  unfinished_ -= stream->second.bytes;
  streams_.erase(stream);
}

void FrameGuard::OnSent(std::string_view bytes) {
  while (const uint8_t* const head = sent_.Next(bytes)) {
    const uint8_t kind = head[3];
    if (kind != kData && kind != kHeaders && kind != kRstStream) continue;
    if (kind == kData) idle_.Add(limits_.idle_frames_per_call);
    const auto found = streams_.find(StreamOf(head));
    if (found == streams_.end()) continue;
    if (kind == kRstStream) {
      if (!found->second.answered) ++resets_by_server_;
      Forget(found);
    } else if ((head[4] & kEndStream) != 0) {
      found->second.answered = true;
      if (found->second.peer_ended) streams_.erase(found);
    }
  }
}

// What the last bytes left behind; most requests end in the bytes that began them.
FrameGuard::Fault FrameGuard::Settle(SteadyTime now) {
  for (; resets_by_server_ > 0; --resets_by_server_) {
    if (!resets_.Take(now)) return Fault::kResets;
  }
  for (const uint32_t stream : begun_) {
    if (Unfinished(stream)) long_begun_.push_back({stream, now});
  }
  begun_.clear();
  while (!long_begun_.empty() && !Unfinished(long_begun_.front().stream)) long_begun_.pop_front();
  if (told_ == unfinished_) return Fault::kNone;
  const int64_t more = unfinished_ - std::exchange(told_, unfinished_);
  const int64_t all = all_unfinished_.fetch_add(more, std::memory_order_relaxed) + more;
  return more > 0 && all > limits_.all_unfinished && unfinished_ > limits_.fair_unfinished ? Fault::kUnfinished
                                                                                           : Fault::kNone;
}

bool FrameGuard::Unfinished(uint32_t stream) const {
  const auto found = streams_.find(stream);
  return found != streams_.end() && !found->second.peer_ended;
}

std::optional<SteadyTime> FrameGuard::unfinished_since() const {
  std::optional<SteadyTime> since;
  if (!long_begun_.empty()) since = long_begun_.front().since;
  if (in_block_ && (!since || block_begun_ < *since)) since = block_begun_;
  return since;
}

}  // namespace userintent::rpc
