// Creation's place among --max_in_flight, its slot for an exchange with Astra, and the wait for one.
#include <memory>
#include <utility>

#include "server/usecase/creation.h"

namespace userintent::usecase {
namespace {

// A call waits for a slot for at most this part of the time that it has (contract section 10).
constexpr int kQueuePart = 10;

}  // namespace

// The place is taken inside the ledger's decision, so that no row ever waits between "reserved" and "sending", and only
// by a call that everything else lets go. Where a slot must be waited for there is no row either: the ledger hears no,
// and is asked again when the slot is there.
bool Creation::MayStart() {
  if (in_vain_) {  // it waited in the queue
    refusal_ = in_vain_;
    return false;
  }
  if (place_.load() == Place::kTaken) {  // out of the queue, with a slot
    refusal_ = deps_.admission.LookAgain(asked_at_, deadline_);
    return !refusal_;
  }
  refusal_ = deps_.admission.Enter(asked_at_, deadline_, account_, {shared_from_this(), this});
  if (refusal_ && !refusal_->waits) return false;
  Place none = Place::kNone;
  if (place_.compare_exchange_strong(none, Place::kTaken)) return !refusal_;
  deps_.admission.Undo(account_, this);
  return false;
}

// Nothing was decided but that it waits, and the caller still does.
bool Creation::MustWait() const { return refusal_ && refusal_->waits && place_.load() == Place::kTaken; }

void Creation::OnQueueNews() {
  deps_.loop.Post([self = shared_from_this()] {
    if (self->state_ == State::kQueued) self->LookAtQueue();
  });
}

void Creation::WaitForSlot() {
  state_ = State::kQueued;
  creations_.queued_.insert(this);
  request_.Pack();
  wait_timer_ = deps_.loop.CallAt(asked_at_ + (deadline_ - asked_at_) / kQueuePart,
                                  [self = shared_from_this()] { self->LeaveQueue(QueueEnd::kExpired); });
  LookAtQueue();
}

void Creation::LookAtQueue() {
  switch (deps_.admission.Holds(*this)) {
    case SlotTaker::Holds::kNothing:
      return LeaveQueue(QueueEnd::kGaveWay);
    case SlotTaker::Holds::kSlot:
      return GoOn();
    case SlotTaker::Holds::kWaits:
      if (deps_.admission.draining()) LeaveQueue(QueueEnd::kDrained);
      return;
  }
}

// Out of the queue the ledger is asked anew, because much may have happened to the request meanwhile: it may run, or
// have ended, under another call.
void Creation::GoOn() {
  const auto self = shared_from_this();  // the timer may have been the last to hold it
  EndQueue(QueueEnd::kSlot);
  AskAnew();
}

void Creation::LeaveQueue(QueueEnd why) {
  if (state_ != State::kQueued) return;
  const auto self = shared_from_this();
  EndQueue(why);
  GiveBackPlace(false);
  if (!done_) {
    state_ = State::kEnded;
    return;
  }
  in_vain_ = deps_.admission.AfterQueue(deps_.loop.Now());
  AskAnew();
}

void Creation::EndQueue(QueueEnd why) {
  creations_.queued_.erase(this);
  deps_.loop.CancelTimer(std::exchange(wait_timer_, 0));
  trail_.queued = deps_.loop.Now() - asked_at_;
  deps_.observer.OnQueueEnd(why, *trail_.queued);
}

void Creation::AskAnew() {
  state_ = State::kBeginning;
  refusal_.reset();
  request_.Unpack();
  Begin();
}

void Creation::OnWaiting() {
  deps_.loop.Post([self = shared_from_this()] { self->OnJoined(); });
}

void Creation::OnJoined() {
  joined_ = true;
  in_vain_.reset();
  GiveBackPlace(false);  // of a call that came out of the queue and finds its request running
  request_.Pack();
  if (late_) OnLateBeginning();
}

// Begins in the place of the call that it waited for.
void Creation::TakeOver() {
  if (std::exchange(joined_, false)) request_.Unpack();
  Begin();
}

// `begun`: the call that held it was let go, so its token is spent, whatever came of it.
void Creation::GiveBackPlace(bool begun) {
  Place taken = Place::kTaken;
  if (!place_.compare_exchange_strong(taken, Place::kNone)) return;
  begun ? deps_.admission.Leave(account_, this) : deps_.admission.Undo(account_, this);
}

// The token stays spent: the row may have begun.
void Creation::ClosePlace() {
  if (place_.exchange(Place::kClosed) == Place::kTaken) deps_.admission.Leave(account_, this);
}

}  // namespace userintent::usecase
