// What tests of watches stand on: a ledger that is a list of commits, with its log, whose answers and news come when
// the test says so; and a reader of a stream. One thread.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/change_feed.h"
#include "server/ledger/ledger.h"
#include "server/usecase/stream.h"
#include "server/usecase/watch_stream.h"

namespace userintent::usecase {

inline Uuid Id(int n) {
  Uuid id{};
  id[0] = static_cast<uint8_t>(n >> 8);
  id[1] = static_cast<uint8_t>(n);
  id[15] = 1;
  return id;
}

// Of a ledger that nobody writes to by its own functions.
class WatchLedger final : public ledger::Ledger, public ledger::ChangeFeed {
 public:
  using Status = std::string;

  // A change of this request is committed: its intent has this status now. The listener hears of it by Tell().
  void Commit(const std::string& caller, const Uuid& id, const Status& status) {
    ledger::Record& record = rows_[{caller, id}];
    record.key = {caller, id};
    record.state = ledger::State::kSucceeded;
    record.answer.user_intent_id = "intent";
    record.latest.astra_status = status;
    record.attempt_id = id;
    log_.push_back({++revision_, record.key});
  }
  // Tells the listener of at most `n` changes that it has not heard of.
  void Tell(size_t n = SIZE_MAX) {
    const size_t left = static_cast<size_t>(revision_ - told_);
    if (left == 0) return;
    const auto first = log_.end() - static_cast<ptrdiff_t>(left);
    const std::vector<ledger::Change> news(first, first + static_cast<ptrdiff_t>(std::min(left, n)));
    told_ = news.back().revision;
    if (listener_ != nullptr) listener_->OnChanges(news);
  }
  void Change(const std::string& caller, const Uuid& id, const Status& status) {
    Commit(caller, id, status);
    Tell();
  }
  // Forgets all but the last `keep` changes; those that were told.
  void Prune(size_t keep) {
    while (log_.size() > keep && log_.front().revision <= told_) log_.pop_front();
  }
  // Another process opens it: nobody listens any more, and what was committed is all there is.
  void Restart() {
    listener_ = nullptr;
    told_ = revision_;
    waiting_.clear();
  }

  // While true, revision() is what the listener was told: other replicas commit, and their commits are heard of later.
  bool shared = false;
  // While true, answers wait for Answer().
  bool held = false;
  bool available = true;
  size_t gets = 0;
  size_t log_reads = 0;
  // Runs the answer of one of those that wait.
  size_t waiting() const { return waiting_.size(); }
  void Answer(size_t which = 0) {
    const auto at = waiting_.begin() + static_cast<ptrdiff_t>(which);
    auto [executor, task] = std::move(*at);
    waiting_.erase(at);
    executor->Post(std::move(task));
  }

  std::optional<ledger::Record> Find(const std::string& caller, const Uuid& id) const {
    const auto found = rows_.find({caller, id});
    return found == rows_.end() ? std::nullopt : std::optional(found->second);
  }
  const std::map<ledger::Key, ledger::Record>& rows() const { return rows_; }

  // ledger::Ledger.
  void Get(ledger::Key key, Executor& executor, GetDone done) override {
    ++gets;
    // Decided now, as a batch decides in the order of its operations; told later.
    ledger::GetAnswer answer;
    answer.available = available;
    if (available) answer.record = Find(key.caller, key.request_id);
    Later(executor, [answer = std::move(answer), done = std::move(done)]() mutable { done(std::move(answer)); });
  }
  Token Begin(ledger::BeginRequest, Executor&, BeginDone) override { return Unused(); }
  void Forget(Token) override { Unused(); }
  void NextAttempt(ledger::Key, Uuid, ledger::Sent, absl::Time, Executor&, AttemptDone) override { Unused(); }
  void Finish(ledger::FinishRequest, Executor&, FinishDone) override { Unused(); }
  void FindIntent(std::string, std::string, Executor&, GetDone) override { Unused(); }
  void RecordReading(ledger::Key, ledger::Reading, Executor&, ReadingDone) override { Unused(); }
  void Settle(ledger::SettleRequest, Executor&, SettleDone) override { Unused(); }
  void Trace(ledger::TraceRequest, Executor&, TraceDone) override { Unused(); }
  void ListSucceeded(ledger::SucceededRequest, Executor&, SucceededDone) override { Unused(); }
  bool Writable() const override { return true; }

  // ledger::ChangeFeed.
  uint64_t ledger_id() const override { return 7; }
  int64_t revision() const override { return shared ? told_ : revision_; }
  void SetListener(ledger::ChangeListener* listener) override { listener_ = listener; }
  void ReadChanges(Request request, Executor& executor, Done done) override {
    ++log_reads;
    ledger::ChangeFeed::Answer answer = Read(request);
    Later(executor, [answer = std::move(answer), done = std::move(done)]() mutable { done(std::move(answer)); });
  }

 private:
  static Token Unused() {
    ADD_FAILURE() << "a watch writes";
    return 0;
  }

  ledger::ChangeFeed::Answer Read(const Request& request) const {
    ledger::ChangeFeed::Answer answer;
    answer.available = available;
    answer.upto = request.after;
    const int64_t first = log_.empty() ? revision_ + 1 : log_.front().revision;
    answer.too_old = request.after + 1 < first || request.after > revision_;
    if (!available || answer.too_old) return answer;
    std::map<Uuid, int64_t> last;
    for (size_t i = log_.size() - static_cast<size_t>(revision_ - request.after); i < log_.size(); ++i) {
      const ledger::Change& change = log_[i];
      const bool wanted = change.key.caller == request.caller &&
                          (request.only == nullptr || request.only->contains(change.key.request_id));
      if (wanted && last.size() == request.limit && !last.contains(change.key.request_id)) break;
      if (wanted) last[change.key.request_id] = change.revision;
      answer.upto = change.revision;
    }
    for (const auto& [id, revision] : last) answer.changed.push_back({revision, *Find(request.caller, id), {}});
    std::sort(answer.changed.begin(), answer.changed.end(),
              [](const auto& a, const auto& b) { return a.revision < b.revision; });
    return answer;
  }

  void Later(Executor& executor, Task task) {
    if (held) {
      waiting_.emplace_back(&executor, std::move(task));
    } else {
      executor.Post(std::move(task));
    }
  }

  std::map<ledger::Key, ledger::Record> rows_;
  std::deque<ledger::Change> log_;
  int64_t revision_ = 0;
  int64_t told_ = 0;
  ledger::ChangeListener* listener_ = nullptr;
  std::deque<std::pair<Executor*, Task>> waiting_;
};

// Takes the messages of one stream.
class Reader final : public StreamOutput<v1::WatchUserIntentsResponse> {
 public:
  using Event = v1::WatchUserIntentsResponse::EventCase;

  void Write(const v1::WatchUserIntentsResponse& message) override {
    EXPECT_FALSE(writing) << "two writes at once";
    EXPECT_FALSE(ended) << "a write after the end";
    EXPECT_LE(message.ByteSizeLong(), 64U * 1024);
    EXPECT_LE(message.resume_token().size(), 256U);  // of the proto
    writing = true;
    messages.push_back(message);
  }
  void End(CallError error) override {
    EXPECT_FALSE(ended) << "ended twice";
    ended = std::move(error);
  }

  // Takes the message under way.
  void Read() {
    writing = false;
    if (!ended) stream->OnWritten();
  }

  std::shared_ptr<ServerStream> stream;
  std::vector<v1::WatchUserIntentsResponse> messages;
  bool writing = false;
  std::optional<CallError> ended;
};

// Counts what it is told.
class WatchCounts final : public WatchObserver {
 public:
  void OnWatchOpened() override { ++open; }
  void OnWatchEvent(WatchEvent event) override { ++events[event]; }
  void OnWatchEnded(WatchEnd why, bool opened) override {
    if (opened) --open;
    ++ends[why];
  }

  int open = 0;
  std::map<WatchEvent, int> events;
  std::map<WatchEnd, int> ends;
};

}  // namespace userintent::usecase
