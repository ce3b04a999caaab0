#include "server/ledger/group_commit.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/random/random.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/ledger/execute.h"

namespace userintent::ledger {

namespace {

// So often is a batch decided before it is halved, and a single operation before it is given up as if the store failed.
constexpr int kTriesOfBatch = 3;
constexpr int kTriesOfOne = 20;
constexpr absl::Duration kLongestPause = absl::Milliseconds(10);

}  // namespace

void GroupCommit::Run(Batch batch) {
  if (healthy_) {
    last_error_ = WriteUntilDecided(batch);
    if (absl::IsAborted(last_error_) && batch.size() > 1) {
      const size_t half = batch.size() / 2;
      Run(batch.first(half));
      return Run(batch.subspan(half));
    }
    healthy_ = last_error_.ok();
  }
  std::optional<AnswersTogether> together;
  if (batch.size() > 1) together.emplace();
  for (const std::unique_ptr<Operation>& operation : batch) {
    // Delivered one by one: a later Begin of the batch must find this outcome, and must find its waiters gone.
    if (!healthy_) operation->ApplyReadOnly(at_);
    operation->Deliver(at_);
  }
  // Others were quicker each time. No outcome waits for Retry, so the store is as well as ever.
  if (absl::IsAborted(last_error_) && outbox_.size() == 0) healthy_ = true;
}

absl::Status GroupCommit::WriteUntilDecided(Batch batch) {
  for (int tries = batch.size() > 1 ? kTriesOfBatch : kTriesOfOne;; --tries) {
    const absl::Status s = Write(batch);
    if (!absl::IsAborted(s) || tries <= 1) return s;
    Pause();
  }
}

absl::Status GroupCommit::Write(Batch batch) {
  absl::Status s = at_.store.Start();
  if (s.ok() && at_.store.prepares()) {
    std::vector<Lookup> lookups;
    for (const std::unique_ptr<Operation>& operation : batch) operation->AddLookups(lookups);
    s = at_.store.Prepare(lookups);
  }
  for (auto operation = batch.begin(); s.ok() && operation != batch.end(); ++operation) {
    s = (*operation)->Apply(at_);
    if (IsRefusal(s)) s = absl::OkStatus();  // a refused operation harms no other
  }
  if (s.ok()) s = Commit(batch);
  if (!s.ok()) at_.store.Rollback();
  return s;
}

absl::Status GroupCommit::Commit(Batch batch) {
  // Only a crash test needs to know what the batch holds.
  const auto holds = [this, batch](Operation::Durable what) {
    return at_.crash_point != nullptr &&
           std::any_of(batch.begin(), batch.end(), [what](const auto& one) { return one->durable() == what; });
  };
  const bool sending = holds(Operation::Durable::kSending);
  const bool outcome = holds(Operation::Durable::kOutcome);
  const bool next = holds(Operation::Durable::kNextAttempt);
  const bool settled = holds(Operation::Durable::kSettled);
  const bool webhook = holds(Operation::Durable::kWebhook);
  if (sending) at_.Reach("before-sending-commit");
  if (outcome) at_.Reach("before-outcome-commit");
  if (next) at_.Reach("before-next-attempt-commit");
  if (settled) at_.Reach("before-settle-commit");
  if (webhook) at_.Reach("webhook-received-not-committed");
  if (absl::Status s = at_.store.Commit(); !s.ok()) return s;
  if (sending) at_.Reach("after-sending-commit");
  if (outcome) at_.Reach("after-outcome-commit");
  if (next) at_.Reach("after-next-attempt-commit");
  if (settled) at_.Reach("settled-not-notified");
  if (webhook) at_.Reach("webhook-committed-not-answered");
  TellChanges();
  return absl::OkStatus();
}

void GroupCommit::TellChanges() {
  const std::vector<Change> changes = at_.store.TakeLogged();
  if (changes.empty()) return;
  revision_.store(changes.back().revision, std::memory_order_release);
  if (ChangeListener* const listener = listener_.load(std::memory_order_acquire)) listener->OnChanges(changes);
}

absl::Status GroupCommit::Transact(absl::FunctionRef<absl::Status()> work) {
  if (!healthy_) return absl::UnavailableError("the ledger cannot be written; it comes back when the disk does");
  absl::Status s;
  for (int tries = kTriesOfOne; tries > 0; --tries) {
    s = at_.store.Start();
    if (s.ok()) {
      if (absl::Status refused = work(); !refused.ok()) {
        at_.store.Rollback();
        return refused;  // were it the disk, the next batch would tell
      }
      s = at_.store.Commit();
    }
    if (s.ok()) {
      TellChanges();
      return s;
    }
    at_.store.Rollback();
    if (!absl::IsAborted(s)) break;
    Pause();
  }
  last_error_ = s;
  healthy_ = absl::IsAborted(s);  // then others were quicker, and the store is as well as ever
  return s;
}

// Not in step with the others who want the same.
void GroupCommit::Pause() { absl::SleepFor(absl::Uniform(random_, 0.0, 1.0) * kLongestPause); }

bool GroupCommit::Retry() {
  absl::Status s = at_.store.Start();
  if (s.ok()) s = outbox_.WriteTo(at_.store);
  if (s.ok()) s = at_.store.Touch();
  if (s.ok()) s = at_.store.Commit();
  last_error_ = s;
  healthy_ = s.ok();
  if (s.ok()) {
    outbox_.Clear();
    TellChanges();
  } else {
    at_.store.Rollback();
  }
  return healthy_;
}

}  // namespace userintent::ledger
