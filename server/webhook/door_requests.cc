#include <microhttpd.h>

#include <string_view>
#include <utility>

#include "absl/time/clock.h"
#include "server/webhook/door.h"
#include "server/webhook/door_parts.h"
#include "server/webhook/event.h"
#include "server/webhook/head.h"
#include "server/webhook/json_object.h"

// What becomes of a request, from its head to its answer.

namespace userintent::webhook {
namespace {

constexpr char kRetryAfter[] = "10";  // seconds

Answer AnswerTo(ledger::Receipt receipt) {
  switch (receipt) {
    case ledger::Receipt::kStored:
      return Answer::kStored;
    case ledger::Receipt::kWaits:
      return Answer::kWaits;
    case ledger::Receipt::kDone:
      return Answer::kDone;
    case ledger::Receipt::kFull:
      return Answer::kFull;
    case ledger::Receipt::kUnavailable:
      return Answer::kUnavailable;
  }
  return Answer::kUnavailable;
}

}  // namespace

bool Door::OnHead(Request& request, const Head& head) {
  const HeadVerdict verdict = JudgeHead(head, options_.path);
  request.answer = verdict.refusal;
  if (!verdict.read_body) return Reply(request, *verdict.refusal, true);
  if (head.signature.times == 1) request.signature = std::string(head.signature.value);
  request.length = verdict.length;
  request.body.emplace(verdict.length);
  return true;
}

// Once the body is there, and again when the ledger has answered.
bool Door::OnComplete(Request& request) {
  if (request.answer) return Reply(request, *request.answer, stopping_);
  ledger::Webhook webhook;
  if (const std::optional<Answer> refusal = Judge(request, &webhook)) return Reply(request, *refusal, stopping_);
  Ask(request, std::move(webhook));
  return true;
}

std::optional<Answer> Door::Judge(const Request& request, ledger::Webhook* webhook) {
  const Keys::Ring ring = keys_.Now(SteadyClock::now());
  const std::string_view body = request.body->view();
  const std::optional<JsonObject> object = JsonObject::Parse(body);
  std::optional<std::string> python_form;
  if (object && object->plain()) python_form = object->PythonForm();
  const std::optional<Match> match = FindMatch(request.signature, body, python_form, ring.secrets);
  if (python_form) WipeUsed(*python_form);
  if (!match) return Answer::kNoSignature;
  observer_.OnSignature(ring.KindOf(match->key), match->form);
  request.link.proven = true;
  std::optional<ledger::Webhook> event;
  if (object) event = ReadEvent(*object, absl::Now());
  if (!event) return Answer::kWrongShape;
  *webhook = *std::move(event);
  return std::nullopt;
}

void Door::Ask(Request& request, ledger::Webhook webhook) {
  request.asked = ++last_number_;
  asked_.emplace(request.asked, &request);
  Enter(request.link, Phase::kAsking, options_.ledger_limit);
  MHD_suspend_connection(request.link.handle);
  queue_.Receive(std::move(webhook), *this,
                 [this, number = request.asked](ledger::Receipt receipt) { OnReceipt(number, receipt); });
}

// Comes too late where the request has been answered for want of it.
void Door::OnReceipt(uint64_t number, ledger::Receipt receipt) {
  const auto found = asked_.find(number);
  if (found == asked_.end()) return;
  Request& request = *found->second;
  asked_.erase(found);
  request.answer = AnswerTo(receipt);
  Enter(request.link, Phase::kAnswering, options_.request_limit);
  MHD_resume_connection(request.link.handle);
}

bool Door::Reply(Request& request, Answer answer, bool close) {
  const AnswerRow& row = RowOf(answer);
  MHD_Response* const response =
      MHD_create_response_from_buffer(row.text.size(), const_cast<char*>(row.text.data()), MHD_RESPMEM_PERSISTENT);
  if (response == nullptr) return false;
  MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
  MHD_add_response_header(response, "Cache-Control", "no-store");
  if (answer == Answer::kWrongMethod) MHD_add_response_header(response, "Allow", "POST");
  if (row.status == 503) MHD_add_response_header(response, "Retry-After", kRetryAfter);
  if (close) MHD_add_response_header(response, "Connection", "close");
  Enter(request.link, Phase::kAnswering, options_.request_limit);
  const bool queued = MHD_queue_response(request.link.handle, row.status, response) == MHD_YES;
  MHD_destroy_response(response);
  if (queued) observer_.OnAnswer(answer, SteadyClock::now() - request.link.request_began);
  return queued;
}

}  // namespace userintent::webhook
