#include "server/usecase/watch_stream.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/random/random.h"
#include "server/base/uuid.h"
#include "server/usecase/messages.h"
#include "server/usecase/watch_request.h"

namespace userintent::usecase {
namespace {

// In this file: errors of streams; the stream.

using Response = v1::WatchUserIntentsResponse;

constexpr std::string_view kEndsMessage = "The stream ends here; call again with the last resume_token.";
constexpr std::string_view kSlowMessage =
    "Messages were not read for too long. Call again with the last resume_token, and read faster.";
constexpr std::string_view kTooManyMessage = "Too many streams are open. Close some, or call again later.";
constexpr std::string_view kLedgerMessage =
    "The ledger cannot be read at the moment. Call again later with the last resume_token.";

// How many states are read from the ledger at once. It is few, so that a thousand streams that begin together do not
// fill the ledger's queue.
constexpr size_t kBatch = 16;
constexpr auto kLedgerSilentFor = std::chrono::seconds(10);

double Random(double from, double to) {
  thread_local absl::InsecureBitGen generator;
  return absl::Uniform(generator, from, to);
}

SteadyClock::duration RandomPart(SteadyClock::duration whole, double least) {
  return std::chrono::duration_cast<SteadyClock::duration>(whole * Random(least, 1));
}

CallError ErrorOf(WatchEnd why) {
  switch (why) {
    case WatchEnd::kDrain:
    case WatchEnd::kAge: {
      CallError error = CallError::Of(v1::ERROR_REASON_DRAINING);
      error.message = kEndsMessage;
      // All streams of a process that drains end together; they need not come back together. One that has become old
      // may come back at once.
      error.retry_after = why == WatchEnd::kDrain ? absl::Seconds(Random(0.5, 1.5)) : absl::Milliseconds(10);
      return error;
    }
    case WatchEnd::kSlowReader:
    case WatchEnd::kRefused: {
      CallError error = CallError::Of(v1::ERROR_REASON_CALLER_RATE_LIMITED);
      error.message = why == WatchEnd::kRefused ? kTooManyMessage : kSlowMessage;
      error.retry_after = why == WatchEnd::kRefused ? absl::Seconds(Random(5, 10)) : absl::Seconds(1);
      return error;
    }
    case WatchEnd::kLedger: {
      CallError error = CallError::Of(v1::ERROR_REASON_LEDGER_UNAVAILABLE);
      error.message = kLedgerMessage;
      error.retry_after = absl::Seconds(2);
      return error;
    }
    case WatchEnd::kNotAllowed:
      return CallError::Of(v1::ERROR_REASON_CALLER_NOT_ALLOWED);
    case WatchEnd::kCallerLeft:
      break;
  }
  return CallError::Of(v1::ERROR_REASON_INTERNAL);
}

// One stream, whose request is good. The ledger's answers find it through a weak pointer, or are dropped.
class WatchStream final : public ServerStream, public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(const WatchDependencies& deps, StreamOutput<Response>& output) : deps_(deps), output_(output) {}

  ~WatchStream() override {
    deps_.loop.CancelTimer(timer_);
    if (seat_) deps_.observer.OnWatchEnded(WatchEnd::kCallerLeft, true);
  }

  // Ends the call at once when there is no room.
  void Start(std::string caller, WatchRequest request) {
    WatchHub::Refusal refusal{};
    seat_ = deps_.hub.Enter(
        std::move(caller), std::move(request.ids), deps_.loop, [this] { Step(); }, &refusal);
    if (!seat_) {
      const WatchEnd why = refusal == WatchHub::Refusal::kDraining ? WatchEnd::kDrain : WatchEnd::kRefused;
      deps_.observer.OnWatchEnded(why, false);
      return output_.End(ErrorOf(why));
    }
    deps_.observer.OnWatchOpened();
    const SteadyTime now = deps_.loop.Now();
    ends_at_ = now + RandomPart(std::min<SteadyClock::duration>(kLongestWatch, deps_.connection_age), 0.9);
    heartbeat_at_ = now + kHeartbeatEvery;
    SetTimer();
    BeginAnew();
    if (const auto revision = request.position.revision) {
      phase_ = Phase::kResuming;
      position_ = *revision;
      // What happened up to now may be more than this process has heard of yet, where replicas share the ledger. And a
      // token that is further may be another replica's, or of a ledger that was lost.
      ask_log_ = true;
    }
    reset_due_ = request.too_old;
    Step();
  }

  void OnWritten() override {
    writing_ = false;
    Step();
  }

  void OnNotAllowed() override {
    if (seat_) End(WatchEnd::kNotAllowed);
  }

 private:
  enum class Phase {
    kInitial,   // the present states of the named requests
    kResuming,  // what happened between the token and goal_
    kLive,
  };
  // A state that was read and is to be told.
  struct Ready {
    int64_t revision;  // up to which all will have been told, by then
    v1::Creation creation;
  };

  // ---- what is to be done next

  // Runs whenever something that it waits for has come: the reader, the ledger, the hub.
  void Step() {
    if (!seat_) return;
    if (deps_.hub.draining()) return End(WatchEnd::kDrain);
    if (writing_ || reading_) return;
    if (next_ready_ < ready_.size()) return TellReady();
    position_ = std::max(position_, ready_upto_);
    if (std::exchange(reset_due_, false)) return TellReset();
    if (ask_log_) return ReadLog();
    if (phase_ == Phase::kInitial && next_initial_ < seat_->request_ids().size()) return ReadInitial();
    if (phase_ != Phase::kLive && (phase_ == Phase::kInitial || position_ >= goal_)) return TellSynced();
    const WatchHub::Seat::News news = seat_->Take(position_, kBatch);
    if (position_ < news.after) return ReadLog();
    only_ = nullptr;  // not needed again soon
    if (!news.entries.empty()) return ReadStates(news.entries);
    position_ = std::max(position_, news.upto);
  }

  // ---- the ledger

  void ReadInitial() {
    const std::vector<Uuid>& ids = seat_->request_ids();
    std::vector<WatchHub::Entry> batch;
    for (; next_initial_ < ids.size() && batch.size() < kBatch; ++next_initial_) {
      batch.push_back({position_, ids[next_initial_]});
    }
    ReadStates(batch);
  }

  // One Get for each; told in the order of the entries once all have been answered.
  void ReadStates(const std::vector<WatchHub::Entry>& entries) {
    struct Batch {
      std::vector<std::optional<Ready>> states;
      size_t missing;
      bool available = true;
    };
    const auto batch = std::make_shared<Batch>();
    batch->states.resize(entries.size());
    batch->missing = entries.size();
    BeginReading();
    for (size_t i = 0; i < entries.size(); ++i) {
      deps_.ledger.Get({seat_->caller(), entries[i].request_id}, deps_.loop,
                       [weak = weak_from_this(), batch, i, revision = entries[i].revision](ledger::GetAnswer answer) {
                         const std::shared_ptr<WatchStream> self = weak.lock();
                         if (!self) return;
                         batch->available = batch->available && answer.available;
                         if (answer.record) batch->states[i] = self->ReadyOf(revision, *answer.record, answer.budget);
                         if (--batch->missing > 0 || !self->EndReading(batch->available)) return;
                         for (std::optional<Ready>& state : batch->states) {
                           if (state) self->ready_.push_back(*std::move(state));
                         }
                         self->Step();
                       });
    }
    ready_upto_ = entries.back().revision;
  }

  void ReadLog() {
    BeginReading();
    ledger::ChangeFeed::Request request;
    request.caller = seat_->caller();
    request.only = Only();
    request.after = position_;
    deps_.feed.ReadChanges(std::move(request), deps_.loop,
                           [weak = weak_from_this()](ledger::ChangeFeed::Answer answer) {
                             if (const std::shared_ptr<WatchStream> self = weak.lock()) self->OnLog(std::move(answer));
                           });
  }

  void OnLog(ledger::ChangeFeed::Answer answer) {
    if (!EndReading(answer.available)) return;
    const bool asked = std::exchange(ask_log_, false);
    // A log that does not go on would be read for ever.
    reset_due_ = answer.too_old || answer.upto < position_ || (answer.upto == position_ && !asked);
    if (reset_due_) return Step();
    if (asked) goal_ = std::max(goal_, answer.upto);
    ready_.reserve(answer.changed.size());
    for (const ledger::ChangeFeed::Changed& changed : answer.changed) {
      ready_.push_back(ReadyOf(changed.revision, changed.record, changed.budget));
    }
    ready_upto_ = answer.upto;
    Step();
  }

  Ready ReadyOf(int64_t revision, const ledger::Record& record, const ledger::Budget& budget) const {
    return {revision, ToCreation(record, budget, deps_.attempt_limit)};
  }

  // The named requests, as the log wants them; made when they are needed first.
  std::shared_ptr<const absl::flat_hash_set<Uuid>> Only() {
    const std::vector<Uuid>& ids = seat_->request_ids();
    if (!only_ && !ids.empty()) only_ = std::make_shared<const absl::flat_hash_set<Uuid>>(ids.begin(), ids.end());
    return only_;
  }

  void BeginReading() {
    reading_ = true;
    reading_since_ = deps_.loop.Now();
  }

  // False: the stream has ended.
  bool EndReading(bool available) {
    reading_ = false;
    if (!seat_) return false;
    if (!available) End(WatchEnd::kLedger);
    return available;
  }

  // ---- the reader

  void TellReady() {
    Ready& ready = ready_[next_ready_++];
    position_ = std::max(position_, ready.revision);
    Response response;
    *response.mutable_changed() = std::move(ready.creation);
    if (next_ready_ == ready_.size()) ForgetReady();
    Write(response, WatchEvent::kChanged);
  }

  void TellSynced() {
    position_ = std::max(position_, goal_);
    phase_ = Phase::kLive;
    Response response;
    response.mutable_synced();
    Write(response, WatchEvent::kSynced);
    heartbeat_at_ = writing_since_ + RandomPart(kHeartbeatEvery, 0.5);  // streams that began together part
  }

  void TellReset() {
    BeginAnew();
    Response response;
    response.mutable_reset();
    Write(response, WatchEvent::kReset);
  }

  // As without a token.
  void BeginAnew() {
    goal_ = seat_->Restart();
    phase_ = Phase::kInitial;
    position_ = 0;
    ask_log_ = false;
    ready_upto_ = 0;
    next_initial_ = 0;
  }

  void ForgetReady() {
    ready_ = {};
    next_ready_ = 0;
  }

  void Write(Response& response, WatchEvent event) {
    const SteadyTime now = deps_.loop.Now();
    writing_ = true;
    writing_since_ = now;
    heartbeat_at_ = now + kHeartbeatEvery;
    WatchPosition position;
    if (phase_ != Phase::kInitial) position.revision = position_;
    response.set_resume_token(deps_.tokens.Make(seat_->caller(), position));
    deps_.observer.OnWatchEvent(event);
    output_.Write(response);
  }

  void End(WatchEnd why) {
    seat_.reset();
    ForgetReady();
    deps_.loop.CancelTimer(std::exchange(timer_, 0));
    deps_.observer.OnWatchEnded(why, true);
    output_.End(ErrorOf(why));
  }

  // ---- time

  void SetTimer() {
    const SteadyTime now = deps_.loop.Now();
    // While a message is under way no heartbeat is due.
    const SteadyTime next = std::max(heartbeat_at_, writing_ ? now + kHeartbeatEvery : now);
    timer_ = deps_.loop.CallAt(std::min(ends_at_, next), [this] { OnTimer(); });
  }

  void OnTimer() {
    timer_ = 0;
    const SteadyTime now = deps_.loop.Now();
    if (writing_ && now - writing_since_ >= kSlowestReader) return End(WatchEnd::kSlowReader);
    if (reading_ && now - reading_since_ >= kLedgerSilentFor) return End(WatchEnd::kLedger);
    if (now >= ends_at_) return End(WatchEnd::kAge);
    if (now >= heartbeat_at_) {
      Step();  // the hub may know that nothing happened for longer than the last token says
      if (!seat_) return;
      if (!writing_) {
        Response response;
        response.mutable_heartbeat();
        Write(response, WatchEvent::kHeartbeat);
      }
    }
    SetTimer();
  }

  const WatchDependencies& deps_;
  StreamOutput<Response>& output_;
  std::shared_ptr<WatchHub::Seat> seat_;  // null: the stream has ended, or never began
  std::shared_ptr<const absl::flat_hash_set<Uuid>> only_;

  Phase phase_ = Phase::kLive;
  int64_t goal_ = 0;  // the revision at which the stream began
  size_t next_initial_ = 0;
  int64_t position_ = 0;      // everything up to this revision has been told, the message under way included
  bool ask_log_ = false;      // first of all: whether the log knows the token, and up to where it goes
  std::vector<Ready> ready_;  // what was read and is to be told, from next_ready_ on
  size_t next_ready_ = 0;
  int64_t ready_upto_ = 0;  // the position once ready_ has been told
  bool reset_due_ = false;

  bool writing_ = false;
  bool reading_ = false;
  SteadyTime writing_since_{};
  SteadyTime reading_since_{};
  SteadyTime heartbeat_at_{};
  SteadyTime ends_at_{};
  Loop::TimerId timer_ = 0;
};

}  // namespace

std::shared_ptr<ServerStream> WatchUserIntents(const WatchDependencies& dependencies, WatchCall&& call) {
  std::vector<intent::Violation> violations;
  WatchRequest request = ReadWatchRequest(call.request, call.caller, dependencies.tokens, &violations);
  if (!violations.empty()) {
    dependencies.observer.OnWatchEnded(WatchEnd::kRefused, false);
    call.output.End(CallError::Of(std::move(violations)));
    return nullptr;
  }
  const auto stream = std::make_shared<WatchStream>(dependencies, call.output);
  stream->Start(std::move(call.caller), std::move(request));
  return stream;
}

}  // namespace userintent::usecase
