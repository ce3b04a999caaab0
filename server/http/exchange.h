// Exchange: the life of one exchange, from Start() until its outcome is ready, whichever library carries it.
//
// It owns the request, collects the answer within the limits and turns what was observed into the Outcome: Finish() is
// the only place where a Fate is decided. Each client derives its own kind, reports what its library does, and keeps
// its exchanges in an Exchanges (exchanges.h). Belongs to the client's thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "server/base/loop.h"
#include "server/http/client.h"

namespace userintent::http {

struct Exchange {
  // How far the request is. Moves forward only.
  enum class Sending {
    kUnsent,     // no connection has it
    kReleased,   // a connection was told to send it, and nothing that the peer could act upon has been handed over
    kMaybeSent,  // the peer may have it: the end of "not sent"
  };
  // How far the answer is. Moves forward only.
  enum class Answer {
    kNone,
    kBegun,   // a head has begun to arrive, if only an interim one: the end of "refused"
    kStatus,  // the final status is known; the rest of its head is under way
    kHead,    // the final head is whole: the body follows, then trailers
  };
  // Which limit the answer has gone beyond.
  enum class Cut { kNone, kHead, kBody };

  // Whether `done` has run for want of time, and what became of the listening.
  enum class Late {
    kNo,
    kListening,
    kGaveWay,  // to another exchange
    kOver,     // its window
  };

  // How the exchange ended, as far as the library can tell.
  enum class End {
    kComplete,  // the answer came to its proper end
    kRefused,   // the peer said that it did not process the request
    kBroken,    // anything else: lost, timed out, cancelled, malformed, over a limit
  };

  // Takes the request over and wipes what a short body left behind. False: it cannot be sent as it is.
  bool Take(Request&& request);

  // Nothing of the request may leave, or no more than has. Asks the clock.
  bool LeaseOver() const { return request.lease != nullptr && !request.lease->Holds(); }

  // The final status line has come.
  void TakeStatus(int status);
  // A field of the final head, with the blanks around its value removed: keeps what Outcome has a place for.
  void TakeField(int status, std::string_view name, std::string_view value);
  // More of the answer's heads has come. False: now it is too much.
  bool TakeHeadBytes(size_t bytes, size_t limit);
  // A piece of the body. Keeps what is within the limit. False: now it is too much.
  bool TakeBody(std::string_view piece, size_t limit);

  // Decides the outcome. `cause` counts if nothing was sent, `detail` unless there is an answer.
  void Finish(End end, NotSentCause cause, std::string_view detail);

  // What Finish() would decide of a request that may have been sent, were this the end. The exchange stays as it is.
  Outcome SoFar(std::string_view detail) const;

  // Wipes headers and body; the path stays.
  void WipeRequest();

  Client::ExchangeId id = 0;
  Client::Done done;
  Request request;
  Outcome outcome;  // `status` is 0 until Answer::kStatus
  SteadyTime start;
  SteadyTime waiting_since;  // `start`, or when it was put back among those that wait
  Sending sending = Sending::kUnsent;
  Answer answer = Answer::kNone;
  Cut cut = Cut::kNone;
  Late late = Late::kNo;
  size_t head_bytes = 0;   // of all heads and trailers
  std::string_view fault;  // what is malformed about the answer: fixed text, empty: nothing

 private:
  std::string_view AnsweredDetail() const;
};

}  // namespace userintent::http
