// H2Exchange: one exchange of an H2Client, as a stream of a connection once it has left the queue.
#pragma once

#include <cstdint>

#include "server/base/loop.h"
#include "server/http/answer_head.h"
#include "server/http/exchange.h"
#include "server/http/exchanges.h"

namespace userintent::http {

class H2Connection;

// Header names of the request are in lower case; each part of it is wiped as soon as it has been taken.
struct H2Exchange : Exchange {
  bool RequestLeft() const { return request.body.empty(); }

  Link<H2Exchange> in_waiting;
  H2Connection* connection = nullptr;  // null: waits to be sent
  int32_t stream = 0;
  SteadyTime sent;                // when the connection took it
  size_t body_offset = 0;         // how much of the body was offered to the connection; all of it: the body is wiped
  AnswerHead head;                // of the answer
  bool reset_as_refused = false;  // the peer reset the stream with REFUSED_STREAM
};

}  // namespace userintent::http
