// Creation: the state machine of one CreateUserIntent call, from the parsed request to the recorded outcome.
//
//   kBeginning --go--> kExchanging <--> kWaiting (before another try, where that is allowed)
//     |    ^                |
//     |    +-> kQueued      +--> kRecording --> replies, unless it did before
//     +--> replies  (until there is a slot for it, or its time there is over)
//
// It belongs to one shard's thread, and every method and callback runs there. The call that started it keeps a
// shared_ptr only to tell it that the caller left; the callbacks that it waits for keep it alive, so that an exchange
// whose caller is gone runs to its end and is recorded. `done` runs at most once, and never from inside Start().
//
// Admission control gives it a place, for one of the caller's create tokens, only when the ledger would start it:
// replays, joins and refusals hold none, and a call that waits for another one's end keeps no more than the bytes of
// its request, in case it must send it after all. Nor does a call that waits for a slot (kQueued); it keeps its place.
//
// An answer that tells of the address or the person what other callers did there, and that sends nothing, costs the
// caller a probe token (contract section 9). While it has none left, no such answer is given, whatever it would say:
// otherwise CALLER_RATE_LIMITED itself would tell.
//
// The rules it carries (contract sections 3 and 4): nothing is sent before the ledger answered kGo; another try needs
// proof that Astra did not process the last one; once bytes may have left, neither the caller's cancel nor its
// deadline stops the exchange; the caller hears an outcome only after it is committed.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/intent/held_request.h"
#include "server/ledger/ledger.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/creations.h"
#include "server/usecase/late_answer.h"
#include "server/usecase/retry_policy.h"

namespace userintent::usecase {

class Creation : public std::enable_shared_from_this<Creation>, private ledger::Admission, private SlotTaker {
 public:
  // The deadline of `call` is finite.
  static std::shared_ptr<Creation> Start(Creations& creations, CreateCall&& call);

  // The caller cancelled, or its connection broke. `done` will not run. What was done for it by now.
  Trail CallerLeft();

  // False: this call waits for another one's end and has put the request away.
  bool holds_request() const { return request_.has_value(); }

  // Ends a wait for another try: the row is released. Creations has forgotten this one already.
  void GiveUpWaiting();

  // Ends a wait for a slot, if there is one: the caller is told that there was none, or what became of the request
  // under another call. Creations may have forgotten this one already.
  void LeaveQueue(QueueEnd why);

  // Answers the caller, who still waits, as if its deadline had come.
  void AnswerNow();

 private:
  enum class State { kBeginning, kQueued, kExchanging, kWaiting, kRecording, kEnded };
  struct Passkey {};

 public:
  Creation(Passkey, Creations& creations, CreateCall&& call);

 private:
  void Begin();
  // ledger::Admission, on the ledger's thread.
  bool MayStart() override;
  void OnWaiting() override;
  void OnJoined();
  bool MustWait() const;
  void OnQueueNews() override;  // SlotTaker, under AdmissionControl's lock
  void WaitForSlot();
  void LookAtQueue();
  void GoOn();
  void EndQueue(QueueEnd why);
  void AskAnew();
  void OnBegun(ledger::BeginAnswer answer);
  void OnGo(const ledger::BeginAnswer& answer);
  void TakeOver();
  void AnswerFromLedger(const ledger::BeginAnswer& answer);
  void Refuse(const ledger::BeginAnswer& answer);
  void WouldGo(const ledger::BeginAnswer& answer);
  bool MayTell(const ledger::BeginAnswer& answer, bool tells);
  void AnswerFromRow(const ledger::BeginAnswer& answer);
  void Succeed(const ledger::Record* record, const ledger::Budget& budget, bool replayed);
  void Send();
  astra::Client::Done ListenOn();
  void OnOutcome(const astra::Outcome& outcome);
  void Wait(const RetryPolicy::TryAgain& again);
  void AfterWait();
  void WaitFor(absl::Duration wait);
  void Finish(ledger::State state, v1::ErrorReason reason);
  void OnRecorded(ledger::FinishAnswer answer);
  void OnAnswerBy(bool stopping = false);
  void OnLateBeginning();
  Trail TrailSoFar() const;
  void Respond(Result<v1::CreateUserIntentResponse> result);
  void GiveBackPlace(bool begun);
  void ClosePlace();

  const Creations::Dependencies& deps_;
  Creations& creations_;
  intent::HeldRequest request_;  // packed while the call waits for another one's end
  const bool validate_only_;
  const SteadyTime deadline_;
  const AdmissionControl::Account account_;  // the caller's
  const bool may_supersede_others_;
  Done<v1::CreateUserIntentResponse> done_;

  State state_ = State::kBeginning;
  ledger::Key key_;
  bool caller_left_ = false;
  // Of the admission control; taken on the ledger's thread. Closed: whatever the ledger decides, this call starts
  // nothing any more.
  enum class Place { kNone, kTaken, kClosed };
  std::atomic<Place> place_{Place::kNone};
  SteadyTime asked_at_{};  // when the ledger was asked
  std::optional<AdmissionControl::Refusal>
      refusal_;  // admission control's; written on the ledger's thread before it answers
  std::optional<AdmissionControl::Refusal> in_vain_;  // of a call that waited for a slot and got none
  bool joined_ = false;                               // waits for the end of a call that runs
  bool late_ = false;                                 // the time to answer came before the ledger's answer
  ledger::Ledger::Token begin_token_ = 0;
  Loop::TimerId answer_timer_ = 0;

  // Of the sending call.
  bool goes_on_ = false;  // a caller that leaves does not stop what has not left yet
  Uuid attempt_id_{};
  ledger::Owner owner_;  // of the row; its lease goes with every try
  astra::Client::CallId call_id_ = 0;
  std::shared_ptr<LateAnswer> late_answer_;  // to this POST; null: nobody listens
  SteadyTime sent_at_{};
  SteadyTime finishing_at_{};
  Trail trail_;
  ExchangeTrace trace_;
  Loop::TimerId wait_timer_ = 0;  // for another try, or for a slot
  RetryPolicy::Tries tries_;
  bool fresh_attempt_id_ = false;  // the next try is another POST, not the same one begun again
  v1::ErrorReason reason_if_given_up_ = v1::ERROR_REASON_UNSPECIFIED;
  ledger::Sent sent_ = ledger::Sent::kNo;
  astra::Outcome outcome_;
};

}  // namespace userintent::usecase
