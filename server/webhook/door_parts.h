// The door's connections and requests, as the library hands them over. For door.cc and door_requests.cc only; the
// door's thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "server/base/wipe.h"
#include "server/webhook/door.h"

namespace userintent::webhook {

struct Link : Connection {
  MHD_Connection* handle = nullptr;
  bool spoke = false;          // a request's first line came, so a TLS handshake is over
  SteadyTime request_began{};  // when the last one did
};

struct Door::Request {
  explicit Request(Link& from) : link(from) {}

  // False: more than the head has announced.
  bool Take(std::string_view bytes) {
    if (bytes.size() > length - body->size()) return false;
    body->Append(bytes);
    return true;
  }

  Link& link;
  std::string signature;  // empty: none, or more than one
  size_t length = 0;      // of the body, as the head says
  std::optional<WipedBuffer> body;
  std::optional<Answer> answer;  // what it is refused with once it is complete, or what the ledger said
  uint64_t asked = 0;            // its number in asked_; 0: the ledger is not asked
};

}  // namespace userintent::webhook
