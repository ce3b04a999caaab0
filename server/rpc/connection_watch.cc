#include "server/rpc/connection_watch.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/observe/log.h"
#include "server/rpc/frame_guard.h"
#include "server/rpc/hand_over.h"
#include "server/rpc/of_openssl.h"

namespace userintent::rpc {
namespace {

// In this file: one watched connection; all of them; OpenSSL's hooks; what others may ask for; SSL_read and SSL_write.

using observe::Level;
using observe::Log;
using observe::SafeText;

using Fault = FrameGuard::Fault;

// What connections cost, measured on libgrpc 1.51: TLS and HTTP/2 of one, a call that has only begun, and what is
// worth the trouble of ending.
constexpr int64_t kConnectionBytes = 85 * 1024;
constexpr int64_t kStreamBytes = 16 * 1024;
constexpr int64_t kSpared = 1024 * 1024;

enum Reason { kStreams, kHeaderBlock, kUnfinished, kResets, kIdleFrames, kSlow, kMemory, kHandshakes, kReasons };
std::array<std::atomic<uint64_t>, kReasons> ended{};

std::atomic<int64_t> all_unfinished{0};

void Tell(const std::string& peer, Reason reason, std::string_view text) {
  ended[reason].fetch_add(1, std::memory_order_relaxed);
  static observe::LogLimiter limiter(std::chrono::milliseconds(200));
  if (const auto held = limiter.Allow()) {
    Log(Level::kWarn, "connection_ended",
        {{"peer", SafeText(peer)}, {"detail", SafeText(text)}, {"suppressed", *held}});
  }
}

class Watched;
void EndOfHandshake(Watched* watched);

// A connection. Its guard belongs to whoever works on the session, which OpenSSL allows to one thread at a time; the
// rest may be read by the thread that ends connections.
class Watched {
 public:
  Watched(int fd, std::string peer) : fd_(fd), peer_(std::move(peer)), guard_(FrameLimits{}, all_unfinished) {
    struct stat status {};
    if (fstat(fd, &status) == 0) inode_ = status.st_ino;
  }
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  uint64_t number = 0;  // once it is one of all

  // The peer's address without its port.
  std::string_view host() const { return std::string_view(peer_).substr(0, peer_.rfind(':')); }

  bool ended() const { return ended_.load(std::memory_order_relaxed); }

  // False: the connection is to end.
  bool Received(std::string_view bytes) {
    if (!std::exchange(spoke_, true)) EndOfHandshake(this);
    const SteadyTime now = SteadyClock::now();
    const Fault fault = guard_.OnReceived(bytes, now);
    Publish();
    if (const int resets = guard_.recent_resets(); resets != resets_) {
      resets_ = resets;
      reset_bytes_.store(resets * kStreamBytes, std::memory_order_relaxed);
      reset_at_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    }
    if (fault == Fault::kNone) return true;
    if (!ended_.exchange(true, std::memory_order_relaxed)) {
      Tell(peer_, static_cast<Reason>(static_cast<int>(fault) - 1), TextOf(fault));
    }
    return false;
  }

  void Sent(std::string_view bytes) {
    guard_.OnSent(bytes);
    Publish();
  }

  // About. Calls that were reset are cleared away within seconds, by whoever serves them.
  int64_t held(SteadyTime now) const {
    const SteadyTime reset_at(SteadyClock::duration(reset_at_.load(std::memory_order_relaxed)));
    const bool lately = now - reset_at < std::chrono::seconds(2);
    return held_.load(std::memory_order_relaxed) + (lately ? reset_bytes_.load(std::memory_order_relaxed) : 0);
  }
  SteadyTime unfinished_since() const {
    return SteadyTime(SteadyClock::duration(since_.load(std::memory_order_relaxed)));
  }

  // From another thread: wakes libgrpc, whose next read fails.
  void End(Reason reason, std::string_view text) {
    if (ended_.exchange(true, std::memory_order_relaxed)) return;
    Tell(peer_, reason, text);
    // libgrpc may have closed the descriptor and its number may be another's: what is held here cannot change.
    const int held = dup(fd_);
    if (held < 0) return;
    struct stat status {};
    if (fstat(held, &status) == 0 && S_ISSOCK(status.st_mode) && status.st_ino == inode_) shutdown(held, SHUT_RDWR);
    close(held);
  }

 private:
  void Publish() {
    held_.store(kConnectionBytes + guard_.streams() * kStreamBytes + guard_.unfinished(), std::memory_order_relaxed);
    const auto since = guard_.unfinished_since();
    since_.store(since ? since->time_since_epoch().count() : SteadyTime::max().time_since_epoch().count(),
                 std::memory_order_relaxed);
  }

  const int fd_;
  ino_t inode_ = 0;
  const std::string peer_;
  FrameGuard guard_;
  bool spoke_ = false;  // the handshake is done
  std::atomic<bool> ended_{false};
  std::atomic<int64_t> held_{kConnectionBytes};
  int resets_ = 0;
  std::atomic<int64_t> reset_bytes_{0};
  std::atomic<SteadyClock::rep> reset_at_{0};
  std::atomic<SteadyClock::rep> since_{SteadyTime::max().time_since_epoch().count()};
};

struct All {
  Mutex mutex;
  std::unordered_set<Watched*> connections ABSL_GUARDED_BY(mutex);
  // Those whose handshake has not ended, in the order of their begin; and how many of these each host has.
  std::map<uint64_t, Watched*> handshakes ABSL_GUARDED_BY(mutex);
  std::map<std::string, int, std::less<>> hosts ABSL_GUARDED_BY(mutex);
  uint64_t begun ABSL_GUARDED_BY(mutex) = 0;
};

All& Everything() {
  static All& all = *new All;  // sessions are freed as late as they like
  return all;
}

void Forget(All& all, const Watched& watched) ABSL_EXCLUSIVE_LOCKS_REQUIRED(all.mutex) {
  if (all.handshakes.erase(watched.number) == 0) return;
  const auto host = all.hosts.find(watched.host());
  if (--host->second == 0) all.hosts.erase(host);
}

void EndOfHandshake(Watched* watched) {
  All& all = Everything();
  const MutexLock lock(all.mutex);
  Forget(all, *watched);
}

// The oldest of the host that has most: a flood pushes out its own before anybody else's.
Watched* HandshakeToEnd(All& all) ABSL_EXCLUSIVE_LOCKS_REQUIRED(all.mutex) {
  const auto most = std::max_element(all.hosts.begin(), all.hosts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto found = std::find_if(all.handshakes.begin(), all.handshakes.end(),
                                  [&](const auto& one) { return one.second->host() == most->first; });
  return found->second;
}

void OnSessionMade(void* session, void*, CRYPTO_EX_DATA* data, int index, long, void*) {
  const Connection* const from = HandOver::Of(static_cast<SSL*>(session));
  if (from == nullptr) return;
  auto* const watched = new Watched(from->fd, from->address);
  CRYPTO_set_ex_data(data, index, watched);
  All& all = Everything();
  const MutexLock lock(all.mutex);
  all.connections.insert(watched);
  watched->number = ++all.begun;
  if (from->probe) return;  // the server's own is in nobody's way
  all.handshakes.emplace(watched->number, watched);
  ++all.hosts[std::string(watched->host())];
}

void OnSessionFreed(void*, void* mine, CRYPTO_EX_DATA*, int, long, void*) {
  auto* const watched = static_cast<Watched*>(mine);
  if (watched == nullptr) return;
  All& all = Everything();
  {
    const MutexLock lock(all.mutex);
    all.connections.erase(watched);
    Forget(all, *watched);
  }
  delete watched;
}

std::atomic<int> session_index{-1};

Watched* WatchedOf(const SSL* ssl) {
  const int index = session_index.load(std::memory_order_relaxed);
  return index < 0 ? nullptr : static_cast<Watched*>(SSL_get_ex_data(ssl, index));
}

// As OpenSSL does after a broken record.
int Fail() {
  ERR_raise(ERR_LIB_SSL, SSL_R_APPLICATION_DATA_AFTER_CLOSE_NOTIFY);
  return -1;
}

}  // namespace

void StartWatching() {
  HandOver::Prepare();
  static const int index = SSL_get_ex_new_index(0, nullptr, OnSessionMade, nullptr, OnSessionFreed);
  session_index.store(index, std::memory_order_relaxed);
}

void EndUnfinishedSince(SteadyTime then) {
  All& all = Everything();
  const MutexLock lock(all.mutex);
  for (Watched* const one : all.connections) {
    if (one->unfinished_since() < then) one->End(kSlow, "a request that does not end");
  }
}

void MakeRoomForHandshake(int most) {
  All& all = Everything();
  const MutexLock lock(all.mutex);
  while (all.handshakes.size() >= static_cast<size_t>(most)) {
    Watched* const one = HandshakeToEnd(all);
    one->End(kHandshakes, "too many handshakes that do not end");
    Forget(all, *one);
  }
}

int64_t EndLargest(int64_t bytes) {
  const SteadyTime now = SteadyClock::now();
  All& all = Everything();
  const MutexLock lock(all.mutex);
  std::vector<std::pair<int64_t, Watched*>> large;
  for (Watched* const one : all.connections) {
    const int64_t held = one->held(now);
    if (!one->ended() && held >= kSpared) large.emplace_back(held, one);
  }
  std::sort(large.rbegin(), large.rend());
  int64_t let_go = 0;
  for (const auto& [held, one] : large) {
    if (let_go >= bytes) break;
    let_go += held;
    one->End(kMemory, "it holds most while memory is short");
  }
  return let_go;
}

Endings EndedConnections() {
  const auto of = [](Reason reason) { return ended[reason].load(std::memory_order_relaxed); };
  return {of(kStreams),    of(kHeaderBlock), of(kUnfinished), of(kResets),
          of(kIdleFrames), of(kSlow),        of(kMemory),     of(kHandshakes)};
}

}  // namespace userintent::rpc

// In place of OpenSSL's for the whole process, with the same meaning.

extern "C" __attribute__((visibility("default"))) int SSL_read(SSL* ssl, void* buffer, int size) {
  using userintent::rpc::Watched;
  static auto* const read = userintent::rpc::OfOpenSsl<int (*)(SSL*, void*, int)>("SSL_read");
  Watched* const watched = userintent::rpc::WatchedOf(ssl);
  if (watched == nullptr) return read(ssl, buffer, size);
  if (watched->ended()) return userintent::rpc::Fail();
  const int got = read(ssl, buffer, size);
  if (got <= 0) return got;
  return watched->Received({static_cast<const char*>(buffer), static_cast<size_t>(got)}) ? got
                                                                                         : userintent::rpc::Fail();
}

extern "C" __attribute__((visibility("default"))) int SSL_write(SSL* ssl, const void* data, int size) {
  using userintent::rpc::Watched;
  static auto* const write = userintent::rpc::OfOpenSsl<int (*)(SSL*, const void*, int)>("SSL_write");
  Watched* const watched = userintent::rpc::WatchedOf(ssl);
  const int put = write(ssl, data, size);
  if (watched != nullptr && put > 0) watched->Sent({static_cast<const char*>(data), static_cast<size_t>(put)});
  return put;
}
