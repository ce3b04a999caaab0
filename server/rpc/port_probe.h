// PortProbe: whether the gateway's own port still answers, and its calls.
//
// Every two seconds it opens one connection as any client would and waits for the first byte from the server: its TLS
// handshake's answer, or its HTTP/2 settings where there is no TLS. So accept, libgrpc's poller and the TLS engine all
// took part; no certificate is needed. Then it makes a whole call, which needs a shard, and comes to the server without
// the connection that it has no certificate for. A process that is merely busy answers late, so only two silences in a
// row, of 3.5 s each for both questions, count as deaf; the next question follows at once, so it is at most 9 s after
// the server went deaf.
// alive() answers with the last finding; it costs nothing and never blocks.
//
// A thread of its own from the constructor to the destructor. alive() by any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "server/base/mutex.h"

namespace userintent::rpc {

struct PortProbeOptions {
  std::string host;  // an IP address of the machine itself. "Any address" is asked on loopback, of either family
  uint16_t port = 0;
  bool tls = false;
  std::function<void(uint16_t)> announce;               // told the local port before each connection; may be empty
  std::function<bool(std::chrono::milliseconds)> call;  // whether a call was answered within that time; may be empty
  std::chrono::milliseconds every{2000};
  std::chrono::milliseconds patience{3500};
  int silences = 2;
};

class PortProbe {
 public:
  explicit PortProbe(PortProbeOptions options);
  ~PortProbe();
  PortProbe(const PortProbe&) = delete;
  PortProbe& operator=(const PortProbe&) = delete;

  // Before the server closes its port; alive() keeps its word.
  void Stop();

  bool alive() const { return alive_.load(std::memory_order_acquire); }

 private:
  void Run();
  bool Ask() const;
  bool AskAt(const std::string& place, std::chrono::steady_clock::time_point end) const;

  const PortProbeOptions options_;
  const std::string hello_;  // what a client says first
  std::atomic<bool> alive_{true};
  Mutex mutex_;
  CondVar stop_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace userintent::rpc
