// Frames of a caller, and of the server, -> FrameGuard. An input is records of eight bytes: who sends, milliseconds
// since the one before, type, flags, stream, length (two bytes), and where the frame is cut in two.
//
// The oracle: a model that keeps every stream by itself counts the same; how the bytes are cut changes nothing; when
// the guards are gone, nothing is left of what they told of all connections.
#include <atomic>
#include <map>
#include <string>

#include "server/rpc/frame_guard.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using rpc::FrameGuard;
using Fault = FrameGuard::Fault;

// Small enough for an input to go beyond each of them.
constexpr rpc::FrameLimits kLimits{.streams = 4,
                                   .header_block = 1000,
                                   .unfinished = 2000,
                                   .all_unfinished = 1 << 30,
                                   .fair_unfinished = 500,
                                   .resets = 3,
                                   .resets_per_second = 2,
                                   .idle_frames = 6,
                                   .idle_frames_per_second = 4,
                                   .idle_frames_per_call = 2};

// What a peer sent that moves no call, and what may come of it at most.
struct Idle {
  double frames = 0;
  double allowed = kLimits.idle_frames;
};

// Streams as RFC 9113 section 5.1 has them, as far as the guard tells of them.
class Model {
 public:
  void OnReceived(uint8_t type, uint8_t flags, uint32_t stream, uint32_t size) {
    const bool end = (flags & 1) != 0;
    const auto at = streams_.find(stream);
    const bool open = at != streams_.end();
    const bool begins = type == 1 && !open && stream % 2 == 1 && stream > last_;
    const bool asks = begins || (type == 9 && size >= 16) || (type == 3 && open) ||
                      (type == 0 && open && !at->second.ended && (end || size >= 16));
    idle.frames += asks ? 0 : 1;
    idle.allowed += begins ? kLimits.idle_frames_per_call : 0;
    if (type == 1 && at == streams_.end() && stream % 2 == 1 && stream > last_) {
      last_ = stream;
      streams_[stream].ended = end;
    } else if ((type == 0 || type == 1) && at != streams_.end()) {
      if (type == 0 && !at->second.ended) at->second.bytes += size;
      at->second.ended = at->second.ended || end;
      if (at->second.ended && at->second.answered) streams_.erase(at);
    } else if (type == 3) {
      streams_.erase(stream);
    }
  }
  void OnSent(uint8_t type, uint8_t flags, uint32_t stream) {
    idle.allowed += type == 0 ? kLimits.idle_frames_per_call : 0;
    const auto at = streams_.find(stream);
    if (at == streams_.end()) return;
    if (type == 3) {
      streams_.erase(at);
    } else if ((type == 0 || type == 1) && (flags & 1) != 0) {
      at->second.answered = true;
      if (at->second.ended) streams_.erase(at);
    }
  }
  Idle idle;

  int streams() const { return static_cast<int>(streams_.size()); }
  int64_t unfinished() const {
    int64_t bytes = 0;
    for (const auto& [id, stream] : streams_) bytes += stream.ended ? 0 : stream.bytes;
    return bytes;
  }
  bool AllEnded() const {
    for (const auto& [id, stream] : streams_) {
      if (!stream.ended) return false;
    }
    return true;
  }

 private:
  struct Stream {
    bool ended = false;
    bool answered = false;
    int64_t bytes = 0;
  };
  std::map<uint32_t, Stream> streams_;
  uint32_t last_ = 0;
};

std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, uint32_t size) {
  std::string bytes = {static_cast<char>(size >> 16),
                       static_cast<char>(size >> 8),
                       static_cast<char>(size),
                       static_cast<char>(type),
                       static_cast<char>(flags),
                       0,
                       0,
                       0,
                       static_cast<char>(stream)};
  return bytes.append(size, '\0');
}

void Run(Input& input, std::atomic<int64_t>& all) {
  FrameGuard guard(kLimits, all);
  FrameGuard in_pieces(kLimits, all);
  Model model;
  bool in_block = false;
  SteadyTime now{std::chrono::hours(1)};
  const std::string preface(24, 'p');
  guard.OnReceived(preface, now);
  in_pieces.OnReceived(preface, now);
  Fault fault = Fault::kNone;
  for (int frames = 0; !input.empty() && fault == Fault::kNone && frames < 500; ++frames) {
    const bool received = input.Bit();
    const std::chrono::milliseconds since(input.Byte());
    now += since;
    model.idle.allowed += std::chrono::duration<double>(since).count() * kLimits.idle_frames_per_second;
    const uint8_t type = input.Byte() % 11;
    const uint8_t flags = input.Byte();
    const uint8_t stream = input.Byte();
    const auto size = static_cast<uint32_t>(input.Number(2) % 1500);
    const std::string frame = Frame(type, flags, stream, size);
    const size_t cut = input.Byte() % frame.size();
    if (!received) {
      Timed([&] { guard.OnSent(frame); });
      in_pieces.OnSent(frame.substr(0, cut));
      in_pieces.OnSent(frame.substr(cut));
      model.OnSent(type, flags, stream);
      continue;
    }
    fault = Timed([&] { return guard.OnReceived(frame, now); });
    in_pieces.OnReceived(frame.substr(0, cut), now);
    // Where two things are wrong at once, the cut may decide which of them is told.
    const bool other_fault = in_pieces.OnReceived(frame.substr(cut), now) != Fault::kNone;
    Check(other_fault == (fault != Fault::kNone), "how bytes are cut changes no verdict");
    model.OnReceived(type, flags, stream, size);
    if (type == 1 || (type == 9 && in_block)) in_block = (flags & 4) == 0;
  }
  if (fault != Fault::kNone) {
    Check(!TextOf(fault).empty(), "a fault has a text");
    Check(guard.OnReceived(Frame(6, 0, 0, 8), now) == fault, "a fault stays");
    return;
  }
  Check(guard.streams() == model.streams() && in_pieces.streams() == model.streams(), "the calls are counted");
  Check(model.streams() <= kLimits.streams, "and never more than allowed");
  Check(model.idle.frames <= model.idle.allowed + 0.001, "frames that ask for nothing are rationed");
  Check(in_block || guard.unfinished() == model.unfinished(), "bytes of requests that have not ended are counted");
  Check(guard.unfinished() <= kLimits.unfinished + kLimits.header_block, "and never more than allowed");
  // It is settled with what is received; what the server sent last may have ended a request since.
  if (guard.OnReceived("", now) != Fault::kNone) return;
  Check(guard.unfinished_since().has_value() == (in_block || !model.AllEnded()), "what has not ended began some time");
}

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  std::atomic<int64_t> all{0};
  Run(input, all);
  Check(all == 0, "what a connection held is gone with it");
}

}  // namespace userintent::fuzz
