#include "server/http/exchange.h"

#include <algorithm>
#include <utility>

#include "server/base/text.h"
#include "server/base/wipe.h"
#include "server/http/exchange_text.h"

namespace userintent::http {

bool Exchange::Take(Request&& from) {
  request.path = std::move(from.path);
  request.headers = std::move(from.headers);
  request.body = std::move(from.body);
  Wipe(from.body);  // a short body was copied rather than moved
  request.needs_http1_alpn = from.needs_http1_alpn;
  request.method = from.method;
  request.on_late = std::move(from.on_late);
  request.lease = std::move(from.lease);
  // A POST has a body, and a GET has none.
  if (request.body.empty() != (request.method == Method::kGet) || HasControl(request.path)) return false;
  return std::all_of(request.headers.begin(), request.headers.end(), [](const auto& field) {
    return !field.first.empty() && !HasControl(field.first) && !HasControl(field.second);
  });
}

void Exchange::TakeStatus(int status) {
  outcome.status = status;
  if (answer < Answer::kStatus) answer = Answer::kStatus;
}

void Exchange::TakeField(int status, std::string_view name, std::string_view value) {
  const auto take = [&](std::string_view wanted, std::string& place) {
    if (place.empty() && EqualsLower(name, wanted)) place = value;
  };
  switch (name.size()) {  // this runs for every field of every answer
    case 4:
      if (status >= 300) take("date", outcome.date);
      return;
    case 10:
      return take("request-id", outcome.request_id);
    case 11:
      return take("retry-after", outcome.retry_after);
    default:
      return;
  }
}

bool Exchange::TakeHeadBytes(size_t bytes, size_t limit) {
  head_bytes += bytes;
  if (head_bytes <= limit) return true;
  cut = Cut::kHead;
  return false;
}

bool Exchange::TakeBody(std::string_view piece, size_t limit) {
  const size_t room = limit - outcome.body.size();
  outcome.body.append(piece.substr(0, room));
  if (piece.size() <= room) return true;
  cut = Cut::kBody;
  return false;
}

std::string_view Exchange::AnsweredDetail() const {
  if (outcome.body_complete) return "answered";
  switch (cut) {
    case Cut::kHead:
      return "answer head over the limit";
    case Cut::kBody:
      return "answer body over the limit";
    case Cut::kNone:
      break;
  }
  return fault.empty() ? "answer cut short" : fault;
}

void Exchange::Finish(End end, NotSentCause cause, std::string_view detail) {
  if (outcome.status != 0) {
    outcome.fate = Fate::kAnswered;
    outcome.body_complete = end == End::kComplete && cut == Cut::kNone;
    outcome.detail = AnsweredDetail();
  } else if (sending != Sending::kMaybeSent) {
    outcome.fate = Fate::kNotSent;
    outcome.cause = cause;
    outcome.detail = detail;
  } else if (end == End::kRefused) {
    outcome.fate = Fate::kRefused;
    outcome.detail = "refused unprocessed by the peer";
  } else {
    outcome.fate = Fate::kMaybeSent;
    outcome.detail = detail;
  }
  WipeRequest();
}

Outcome Exchange::SoFar(std::string_view detail) const {
  Outcome known = outcome;
  known.fate = outcome.status != 0 ? Fate::kAnswered : Fate::kMaybeSent;
  known.detail = outcome.status != 0 ? AnsweredDetail() : detail;
  return known;
}

void Exchange::WipeRequest() {
  for (auto& [name, value] : request.headers) Wipe(value);
  request.headers.clear();
  Wipe(request.body);
}

}  // namespace userintent::http
