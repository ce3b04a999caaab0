#include "server/rpc/hand_over.h"

#include <atomic>
#include <chrono>
#include <optional>
#include <utility>

#include "server/base/mutex.h"
#include "server/rpc/of_openssl.h"

namespace userintent::rpc {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kLongestWait = std::chrono::seconds(1);
// Twice the time that a handshake has: what has no session by then never gets one.
constexpr auto kGivenUp = std::chrono::seconds(10);

struct Slot {
  Mutex mutex;
  CondVar made;
  std::optional<Connection> waiting ABSL_GUARDED_BY(mutex);  // for its session
  int pending ABSL_GUARDED_BY(mutex) = 0;                    // connections without a session
  // One was not waited for to the end. Until all sessions are there, it is not known which is whose.
  bool lost ABSL_GUARDED_BY(mutex) = false;
  Clock::time_point lost_since ABSL_GUARDED_BY(mutex);
};

Slot& TheSlot() {
  static Slot& slot = *new Slot;  // libgrpc's threads may outlive main
  return slot;
}

std::atomic<bool> watching{false};

// The context that this thread makes a session from; see SSL_new below.
thread_local const SSL_CTX* making = nullptr;

int ContextIndex() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

void OnHandedSessionMade(void*, void*, CRYPTO_EX_DATA* data, int index, long, void*) {
  if (making == nullptr || SSL_CTX_get_ex_data(making, ContextIndex()) == nullptr) return;
  Slot& slot = TheSlot();
  const MutexLock lock(slot.mutex);
  if (slot.pending > 0) {
    --slot.pending;
    if (slot.pending == 0) slot.lost = false;
  }
  if (!slot.waiting) return;
  CRYPTO_set_ex_data(data, index, new Connection(*std::exchange(slot.waiting, std::nullopt)));
  slot.made.NotifyOne();
}

void OnHandedSessionFreed(void*, void* mine, CRYPTO_EX_DATA*, int, long, void*) {
  delete static_cast<Connection*>(mine);
}

int SessionIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, OnHandedSessionMade, nullptr, OnHandedSessionFreed);
  return index;
}

}  // namespace

void HandOver::Prepare() { (void)SessionIndex(); }

void HandOver::WatchContext(SSL_CTX* context) {
  Prepare();
  static char mark;
  SSL_CTX_set_ex_data(context, ContextIndex(), &mark);
  watching.store(true, std::memory_order_release);
}

const Connection* HandOver::Of(const SSL* session) {
  return static_cast<const Connection*>(SSL_get_ex_data(session, SessionIndex()));
}

HandOver::HandOver(Connection connection) {
  if (!watching.load(std::memory_order_acquire)) return;
  Slot& slot = TheSlot();
  const MutexLock lock(slot.mutex);
  if (slot.lost && Clock::now() - slot.lost_since > kGivenUp) {
    slot.lost = false;
    slot.pending = 0;
  }
  ++slot.pending;
  if (!slot.lost) slot.waiting = std::move(connection);
}

HandOver::~HandOver() {
  if (!watching.load(std::memory_order_acquire)) return;
  Slot& slot = TheSlot();
  const auto end = Clock::now() + kLongestWait;
  const MutexLock lock(slot.mutex);
  while (slot.waiting && slot.made.WaitUntil(slot.mutex, end)) continue;
  if (!slot.waiting) return;
  slot.waiting.reset();
  slot.lost = true;
  slot.lost_since = Clock::now();
}

}  // namespace userintent::rpc

// In place of OpenSSL's, for libgrpc too: the loader finds the program's function first. Which context a session is of
// can be asked in its new_func up to OpenSSL 3.0 only; later ones set it afterwards.
extern "C" SSL* SSL_new(SSL_CTX* context) {
  static auto* const of_openssl = userintent::rpc::OfOpenSsl<SSL* (*)(SSL_CTX*)>("SSL_new");
  userintent::rpc::making = context;
  SSL* const session = of_openssl(context);
  userintent::rpc::making = nullptr;
  return session;
}
