// userintent::FakeWatch: a watch for tests, whose events the test gives. Link userintent::testing.
//
//   auto fake = std::make_shared<userintent::FakeWatch>();
//   EXPECT_CALL(client, WatchUserIntents).WillOnce(testing::Return(userintent::Watch(fake)));
//   fake->Changed(creation);
//   fake->End(userintent::StatusOf(error));
//
// Threads: any thread may call anything. Next() waits until there is an event, or the watch was ended.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "userintent/watch.h"

namespace userintent {

class FakeWatch final : public Watch::Source {
 public:
  // What the reader gets next, in this order. Tokens are "token-1", "token-2", ...
  void Changed(v1::Creation creation) { Give({WatchEvent::Kind::kChanged, std::move(creation), ""}); }
  void Synced() { Give({WatchEvent::Kind::kSynced, {}, ""}); }
  void Reset() { Give({WatchEvent::Kind::kReset, {}, ""}); }

  // After the events that were given, the watch ends so; not OK.
  void End(absl::Status status) {
    absl::MutexLock lock(&mu_);
    end_ = std::move(status);
  }

  std::optional<WatchEvent> Next() override {
    absl::MutexLock lock(&mu_, absl::Condition(this, &FakeWatch::HasNews));
    if (cancelled_ || events_.empty()) {
      status_ = cancelled_ ? absl::CancelledError("the watch was cancelled") : end_;
      return std::nullopt;
    }
    WatchEvent event = std::move(events_.front());
    events_.pop_front();
    resume_token_ = event.resume_token;
    return event;
  }

  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }

  bool cancelled() const {
    absl::MutexLock lock(&mu_);
    return cancelled_;
  }

  absl::Status status() const override {
    absl::MutexLock lock(&mu_);
    return status_;
  }

  std::string resume_token() const override {
    absl::MutexLock lock(&mu_);
    return resume_token_;
  }

 private:
  void Give(WatchEvent event) {
    absl::MutexLock lock(&mu_);
    event.resume_token = absl::StrCat("token-", ++given_);
    events_.push_back(std::move(event));
  }

  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return cancelled_ || !events_.empty() || !end_.ok(); }

  mutable absl::Mutex mu_;
  std::deque<WatchEvent> events_ ABSL_GUARDED_BY(mu_);
  int given_ ABSL_GUARDED_BY(mu_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::string resume_token_ ABSL_GUARDED_BY(mu_);
};

}  // namespace userintent
