#include "server/usecase/webhook_work.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "server/base/crash_point.h"
#include "server/base/time.h"

// In this file: distances in time; Job, the work on one webhook; which webhooks are taken up, and when.

namespace userintent::usecase {
namespace {

constexpr size_t kAtOnce = 64;
constexpr auto kBeat = std::chrono::seconds(10);

constexpr absl::Duration kReadDistance = absl::Seconds(1);  // between two GETs for one intent, at least
constexpr absl::Duration kOrphanAfter = absl::Hours(1);
constexpr absl::Duration kGivenUpAfter = absl::Hours(24);
constexpr int kFewTries = 3;  // so many are made even of a webhook that waited for a server longer than that
constexpr absl::Duration kAttemptsSought = absl::Hours(30 * 24);  // a webhook of an older creation is not expected
constexpr std::chrono::milliseconds kSearchPause{10};             // between two slices of a search
constexpr absl::Duration kSearchDistance = absl::Seconds(2);
// With more webhooks than these none waits for a search: what can be settled or read comes first.
constexpr size_t kManyWait = 200;

bool AboutIntents(std::string_view type) { return type == "user_intent_updated" || type == "user_intent_created"; }

// Doubles a webhook's age each time, within limits.
absl::Duration Backoff(absl::Duration age, absl::Duration least, absl::Duration most) {
  return std::clamp(age, least, most) * absl::Uniform(absl::BitGen(), 0.8, 1.2);
}

}  // namespace

// The work on one webhook until its turn ends. Its callbacks keep it alive.
class WebhookWork::Job final : public std::enable_shared_from_this<Job> {
 public:
  Job(WebhookWork& work, ledger::WebhookQueue::Due due) : work_(work), deps_(work.deps_), due_(std::move(due)) {}

  void Start() {
    if (!AboutIntents(webhook().type)) return End(WebhookResult::kIgnored);
    Trace(0);
  }

 private:
  const ledger::Webhook& webhook() const { return due_.webhook; }
  absl::Duration Age() const { return deps_.wall_clock() - webhook().received; }

  void Trace(int64_t cursor) {
    deps_.ledger.Trace({webhook().resource_id, webhook().attempt_id, webhook().received - kAttemptsSought, cursor,
                        /*by_index_only=*/!searches_},
                       deps_.shard.loop,
                       [self = shared_from_this()](ledger::TraceAnswer answer) { self->OnTraced(std::move(answer)); });
  }

  void OnTraced(ledger::TraceAnswer answer) {
    if (answer.by_intent && answer.by_intent->attempt_id == webhook().attempt_id) answer.by_attempt = answer.by_intent;
    const bool goes_on = answer.available && !answer.by_attempt && answer.more;
    if (goes_on && MaySearch()) return SearchOn(answer.cursor);
    if (std::exchange(searches_, false)) work_.searching_ = false;
    if (!answer.available) return Again("ledger", Backoff(Age(), absl::Seconds(1), absl::Minutes(1)));
    if (goes_on && work_.waiting_ <= kManyWait) return Again("waits for its search", kSearchDistance);
    OnFound(std::move(answer));
  }

  void OnFound(ledger::TraceAnswer answer) {
    if (answer.by_intent) by_intent_ = std::make_shared<const ledger::Record>(*std::move(answer.by_intent));
    // Only a row that does not say so already has anything to settle.
    const bool says_so = answer.by_attempt && answer.by_attempt->state == ledger::State::kSucceeded &&
                         answer.by_attempt->answer.user_intent_id == webhook().resource_id;
    if (answer.by_attempt && !says_so) by_attempt_ = std::move(answer.by_attempt);
    if (says_so && !by_intent_) by_intent_ = std::make_shared<const ledger::Record>(*std::move(answer.by_attempt));
    if (!by_intent_ && !by_attempt_) return End(WebhookResult::kForeign);
    // Astra was quicker than its own answer to the POST: that one says more.
    if (by_attempt_ && by_attempt_->state == ledger::State::kSending) return StillRuns();
    Read();
  }

  // A row that succeeded is looked for among all of them, only to find a contradiction: one webhook at a time does so,
  // with pauses that are the ledger's for calls.
  bool MaySearch() { return searches_ || (searches_ = !std::exchange(work_.searching_, true)); }
  void SearchOn(int64_t cursor) {
    deps_.shard.loop.CallAt(deps_.shard.loop.Now() + kSearchPause,
                            [self = shared_from_this(), cursor] { self->Trace(cursor); });
  }

  void StillRuns() { Again("still runs", Backoff(Age() / 4, absl::Milliseconds(250), absl::Seconds(1))); }

  void Read() {
    const auto last = work_.last_reads_.find(webhook().resource_id);
    // One that lies in the future tells nothing: the clock has been put back since.
    if (last != work_.last_reads_.end() && !by_attempt_ && last->second <= deps_.wall_clock()) {
      // That GET began when Astra had sent this already.
      if (last->second > webhook().received) return End(WebhookResult::kRead);
      const absl::Duration distance = deps_.wall_clock() - last->second;
      if (distance < kReadDistance) return Again("read a moment ago", kReadDistance - distance);
    }
    // A GET that began before the webhook came may bring the status before the change.
    if (deps_.reads.IsBeingRead(webhook().resource_id)) return Again("is being read", absl::Milliseconds(100));
    begun_ = deps_.wall_clock();
    deps_.reads.Read(deps_.shard, {Asker::kWebhook, webhook().resource_id, by_intent_},
                     [self = shared_from_this()](const Result<ledger::Reading>& result) { self->OnRead(result); });
  }

  void OnRead(const Result<ledger::Reading>& result) {
    if (!result.ok()) return OnReadFailed(result.error());
    CrashPoint("webhook-read-not-recorded");
    work_.last_reads_[webhook().resource_id] = begun_;
    if (!by_attempt_) return End(WebhookResult::kRead);
    Settle(result.value());
  }

  void OnReadFailed(const CallError& error) {
    const bool few = due_.tries < kFewTries;
    if (error.reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED) {
      if (Age() >= kGivenUpAfter && !few) return End(WebhookResult::kGivenUp);
      // No sign of anything but haste. Who may settle an outcome comes first; the others make room, so that a long
      // queue is not gone through again and again for a few tokens.
      const absl::Duration most = by_attempt_ ? absl::Milliseconds(100) : absl::Minutes(1);
      return Again("rate limit", error.retry_after + Backoff(Age() / 2, absl::Milliseconds(50), most));
    }
    if (error.reason == v1::ERROR_REASON_USER_INTENT_NOT_FOUND && Age() >= kOrphanAfter && !few) {
      return End(WebhookResult::kOrphan);
    }
    if (Age() >= kGivenUpAfter && !few) return End(WebhookResult::kGivenUp);
    Again("not read", Backoff(Age(), absl::Seconds(1), absl::Minutes(30)));
  }

  void Settle(const ledger::Reading& reading) {
    ledger::SettleRequest proof;
    proof.key = by_attempt_->key;
    proof.attempt_id = by_attempt_->attempt_id;
    proof.state = ledger::State::kSucceeded;
    proof.sent = ledger::Sent::kYes;
    proof.answer.confirmed = true;
    proof.answer.user_intent_id = webhook().resource_id;
    proof.answer.astra_status = reading.astra_status;
    proof.answer.at = reading.read_at;
    proof.reading = reading;
    // Another row has the intent, or Astra says that another POST made it.
    proof.intent_of_another =
        by_intent_ != nullptr || reading.attempt_id.value_or(by_attempt_->attempt_id) != by_attempt_->attempt_id;
    if (proof.reading->verification_type == 0) proof.reading->verification_type = by_attempt_->verification_type;
    proof.action = "settle by webhook";
    proof.evidence = absl::StrCat("webhook ", webhook().id);
    proof.now = deps_.wall_clock();
    deps_.ledger.Settle(std::move(proof), deps_.shard.loop,
                        [self = shared_from_this()](ledger::SettleAnswer answer) { self->OnSettled(answer); });
  }

  void OnSettled(const ledger::SettleAnswer& answer) {
    if (answer.verdict != ledger::SettleVerdict::kStillRuns && answer.verdict != ledger::SettleVerdict::kUnavailable) {
      deps_.settle_observer.OnSettled(SettleWay::kWebhook, by_attempt_->key, answer);
    }
    switch (answer.verdict) {
      case ledger::SettleVerdict::kSettled:
        return End(WebhookResult::kSettled);
      case ledger::SettleVerdict::kConflict:
        return End(WebhookResult::kConflict);
      case ledger::SettleVerdict::kCounted:  // no webhook says so little
      case ledger::SettleVerdict::kSaysSo:
        return End(WebhookResult::kRead);
      case ledger::SettleVerdict::kStillRuns:
      case ledger::SettleVerdict::kNotFound:  // another POST has begun since the row was looked up
        return StillRuns();
      case ledger::SettleVerdict::kUnavailable:
        return Again("ledger", Backoff(Age(), absl::Seconds(1), absl::Minutes(1)));
    }
  }

  void Again(std::string_view why, absl::Duration distance) {
    Finish({webhook().id, std::string(why), deps_.wall_clock() + distance}, std::nullopt);
  }

  void End(WebhookResult result) {
    Finish({webhook().id, std::string(kWebhookResults[static_cast<size_t>(result)]), std::nullopt}, result);
  }

  void Finish(ledger::WebhookQueue::EndRequest request, std::optional<WebhookResult> result) {
    deps_.queue.End(std::move(request), deps_.shard.loop, [self = shared_from_this(), result](bool committed) {
      if (committed && result) self->deps_.observer.OnWebhookEnded(*result);
      self->work_.OnJobEnded(self->webhook().id, committed);
    });
  }

  WebhookWork& work_;
  const Dependencies& deps_;
  const ledger::WebhookQueue::Due due_;
  std::shared_ptr<const ledger::Record> by_intent_;  // SUCCEEDED, with this intent
  std::optional<ledger::Record> by_attempt_;         // of which the webhook says something that the row does not
  absl::Time begun_;                                 // the GET
  bool searches_ = false;                            // it is the one that looks through all rows
};

void WebhookWork::Start() {
  deps_.shard.loop.Post([this] {
    Beat();
    Look();
  });
}

void WebhookWork::Wake() {
  if (woken_.exchange(true)) return;
  deps_.shard.loop.Post([this] {
    woken_ = false;
    Look();
  });
}

void WebhookWork::Stop() {
  deps_.shard.loop.Post([this] { stopped_ = true; });
}

// Also looks, so that what is shown of the queue is never old.
void WebhookWork::Beat() {
  if (stopped_) return;
  const absl::Time now = deps_.wall_clock();
  deps_.queue.ReceiverAlive(now);
  absl::erase_if(last_reads_, [now](const auto& read) { return now - read.second > 2 * kReadDistance; });
  deps_.shard.loop.CallAt(deps_.shard.loop.Now() + kBeat, [this] {
    Beat();
    Look();
  });
}

void WebhookWork::Look() {
  if (stopped_ || deps_.admission.draining()) return;
  if (std::exchange(looking_, true)) {
    look_again_ = true;
    return;
  }
  // Those at work are among those that are due; with room for as many again that wait for another one's intent.
  deps_.queue.Next(deps_.wall_clock(), at_work_.size() + 2 * kAtOnce, deps_.shard.loop,
                   [this](ledger::WebhookQueue::NextAnswer answer) { OnNext(std::move(answer)); });
}

void WebhookWork::OnNext(ledger::WebhookQueue::NextAnswer answer) {
  looking_ = false;
  if (stopped_) return;
  if (!answer.available) return LookIn(absl::Seconds(1));
  waiting_ = answer.waiting;
  deps_.observer.OnWebhookBacklog(answer.waiting, answer.oldest);
  for (ledger::WebhookQueue::Due& due : answer.due) {
    if (at_work_.size() >= kAtOnce) break;
    const std::string& intent = due.webhook.resource_id;
    if (at_work_.contains(due.webhook.id) || intents_.contains(intent)) continue;
    at_work_.emplace(due.webhook.id, intent);
    intents_.insert(intent);
    std::make_shared<Job>(*this, std::move(due))->Start();
  }
  if (std::exchange(look_again_, false)) return Look();
  // With all hands full, the end of some job looks again.
  if (answer.next && at_work_.size() < kAtOnce) LookIn(*answer.next - deps_.wall_clock());
}

// One timer, for the earliest time that somebody wants.
void WebhookWork::LookIn(absl::Duration distance) {
  const SteadyTime when = deps_.shard.loop.Now() +
                          absl::ToChronoNanoseconds(std::clamp(distance, absl::Milliseconds(10), absl::Minutes(1)));
  if (look_timer_ != 0 && look_at_ <= when) return;
  deps_.shard.loop.CancelTimer(look_timer_);
  look_at_ = when;
  look_timer_ = deps_.shard.loop.CallAt(when, [this] {
    look_timer_ = 0;
    Look();
  });
}

// What could not be ended is due still; not at once, since the disk has failed.
void WebhookWork::OnJobEnded(const std::string& id, bool committed) {
  const auto found = at_work_.find(id);
  intents_.erase(found->second);
  at_work_.erase(found);
  if (committed) return Look();
  LookIn(absl::Seconds(1));
}

}  // namespace userintent::usecase
