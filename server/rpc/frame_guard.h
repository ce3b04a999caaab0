// FrameGuard: what one peer's HTTP/2 may ask of the library that reads it. Counts the heads of frames, in both
// directions, and says when the peer goes beyond what a client in its right mind does.
//
// Why: libgrpc 1.51 takes a limit on streams for binding only once the peer has acknowledged it, starts every call that
// is reset at once (CVE-2023-44487), holds a header block of any length (CVE-2023-33953) and any number of requests
// that never end. Each was measured to take hundreds of megabytes within a second (docs/threat-model.md).
//
// Nothing is unpacked and no payload is looked at: frames that are wrong in other ways are the library's to refuse. A
// few nanoseconds for each frame. Belongs to whoever works on the connection, one thread at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/base/loop.h"

namespace userintent::rpc {

// Calls at once on one connection, which is also what clients are told (MAX_CONCURRENT_STREAMS). Measured, a call that
// has only begun costs libgrpc 1.51 13 KB and one whose answer may not be sent 16 KB.
inline constexpr int kMaxStreams = 512;

struct FrameLimits {
  // Ours and the peer's count may differ by what is on the way.
  int streams = kMaxStreams + 64;
  // HEADERS and CONTINUATION of one block, as they are on the wire. Four times what is accepted (kMaxMetadataBytes):
  // between the two, libgrpc refuses the call and the connection lives.
  uint32_t header_block = 256 * 1024;
  // Of requests that have begun and not ended: of this connection; and of all, beyond which nobody may hold more than
  // `fair_unfinished`. One request is 64 KiB at most.
  int64_t unfinished = 4 * 1024 * 1024;
  int64_t all_unfinished = 32 * 1024 * 1024;
  int64_t fair_unfinished = 128 * 1024;
  // Calls that end by a reset before they were answered: so many at once, so many a second. A client that lost patience
  // resets all of its calls, so it is twice what it may have.
  double resets = 2.0 * kMaxStreams;
  double resets_per_second = 1000;
  // Frames that ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, DATA and CONTINUATION of a few bytes,
  // trailers, resets of calls that are over, kinds that nobody knows. Every call and every message that is answered
  // adds to what is allowed, because clients tell of windows and measure round trips as they read.
  double idle_frames = 5000;
  double idle_frames_per_second = 500;
  double idle_frames_per_call = 8;
};

class FrameGuard {
 public:
  enum class Fault { kNone, kStreams, kHeaderBlock, kUnfinished, kResets, kIdleFrames };

  // `all_unfinished`: bytes of unfinished requests of all connections; outlives the guard.
  FrameGuard(const FrameLimits& limits, std::atomic<int64_t>& all_unfinished);
  ~FrameGuard();
  FrameGuard(const FrameGuard&) = delete;
  FrameGuard& operator=(const FrameGuard&) = delete;

  // Bytes that came from the peer, cut anywhere. What is not kNone once stays so.
  Fault OnReceived(std::string_view bytes, SteadyTime now);
  // Bytes on their way to it.
  void OnSent(std::string_view bytes);

  // Calls that are not over.
  int streams() const { return static_cast<int>(streams_.size()); }
  // Bytes of requests, headers of unfinished blocks included, that wait for their end.
  int64_t unfinished() const { return unfinished_ + (in_block_ ? block_bytes_ : 0); }
  // When the oldest request that has not ended began; nothing when all have.
  std::optional<SteadyTime> unfinished_since() const;
  // Calls that were reset lately and may not have been cleared away yet.
  int recent_resets() const { return static_cast<int>(resets_.used()); }

 private:
  struct Stream {
    bool peer_ended = false;
    bool answered = false;
    uint32_t bytes = 0;  // of a request that has not ended
  };
  struct Begun {
    uint32_t stream;
    SteadyTime since;
  };
  using Streams = absl::flat_hash_map<uint32_t, Stream>;

  // Something that is used up and comes back with time.
  class Allowance {
   public:
    Allowance(double most, double per_second) : most_(most), per_second_(per_second), left_(most) {}
    bool Take(SteadyTime now);
    void Add(double more);
    double used() const { return most_ - left_; }

   private:
    const double most_;
    const double per_second_;
    double left_;
    SteadyTime filled_{};
  };

  // Finds the heads of frames in a stream of bytes.
  class Heads {
   public:
    explicit Heads(size_t preface) : skip_(preface) {}
    // The next head that is complete, as its nine bytes; nothing: `bytes` are used up.
    const uint8_t* Next(std::string_view& bytes);

   private:
    size_t skip_;
    size_t have_ = 0;
    uint8_t head_[9] = {};
  };

  Fault OnFrame(const uint8_t* head, SteadyTime now);
  Fault OnHeaders(uint32_t stream, uint32_t size, uint8_t flags, SteadyTime now);
  Fault OnContinuation(uint32_t size, uint8_t flags, SteadyTime now);
  Fault OnData(uint32_t stream, uint32_t size, uint8_t flags, SteadyTime now);
  Fault OnReset(uint32_t stream, SteadyTime now);
  Fault OnIdleFrame(SteadyTime now) { return idle_.Take(now) ? Fault::kNone : Fault::kIdleFrames; }
  void EndOfRequest(Streams::iterator stream);
  void Forget(Streams::iterator stream);
  Fault Settle(SteadyTime now);
  bool Unfinished(uint32_t stream) const;

  const FrameLimits limits_;
  std::atomic<int64_t>& all_unfinished_;
  int64_t told_ = 0;  // of unfinished_, what is in all_unfinished_
  Heads received_;
  Heads sent_;
  Streams streams_;
  uint32_t last_stream_ = 0;
  int64_t unfinished_ = 0;
  bool in_block_ = false;
  uint32_t block_bytes_ = 0;
  SteadyTime block_begun_{};
  int resets_by_server_ = 0;     // of calls without an answer; a peer can bring them about by frames that are wrong
  std::vector<uint32_t> begun_;  // by the bytes that are dealt with
  // Unfinished when the bytes that began them were dealt with, oldest first. What ended behind the first one stays in
  // it for as long.
  std::deque<Begun> long_begun_;
  Allowance resets_;
  Allowance idle_;
  Fault fault_ = Fault::kNone;
};

std::string_view TextOf(FrameGuard::Fault fault);

}  // namespace userintent::rpc
