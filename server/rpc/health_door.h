// HealthDoor: where `userintent-server --healthcheck` asks, which has no caller's certificate.
//
// A Unix socket in the abstract name space, named after the address that the server listens on: both sides know it from
// the same flags, with every kind of ledger, and no file is left behind. It reaches processes of this machine's (this
// container's) network name space only. A peer that connects is told one line and hung up on: "serving", or why not.
// Nothing is read from them, so no peer can hold the door, ask for more, or claim an identity.
//
// A thread of its own from Open() to the destructor. server.cc owns it, and destroys it before what `state` looks at.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace userintent::rpc {

class HealthDoor {
 public:
  static constexpr char kServing[] = "serving";

  // `address`: host and port as in --listen, with the port that was bound. `state` gives the line, on the door's
  // thread.
  static absl::StatusOr<std::unique_ptr<HealthDoor>> Open(const std::string& address,
                                                          std::function<std::string()> state);
  ~HealthDoor();
  HealthDoor(const HealthDoor&) = delete;
  HealthDoor& operator=(const HealthDoor&) = delete;

  // What the server at `address` says of itself: OK, or Unavailable with its line. NotFound: there is no such door, or
  // it belongs to another user. Blocks for at most `timeout`.
  static absl::Status Ask(const std::string& address, std::chrono::milliseconds timeout);

 private:
  HealthDoor(int listener, int wake, std::function<std::string()> state);
  void Run();

  const int listener_;
  const int wake_;  // eventfd: the destructor runs
  const std::function<std::string()> state_;
  std::thread thread_;
};

}  // namespace userintent::rpc
