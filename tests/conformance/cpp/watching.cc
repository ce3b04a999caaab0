#include "watching.h"

#include <chrono>

namespace {

constexpr std::chrono::seconds kEventPatience(30);
constexpr std::chrono::seconds kStopPatience(15);
constexpr std::chrono::seconds kEndPatience(20);

}  // namespace

Watching::Watching(const userintent::Watch& watch)
    : watch_(watch), thread_([this] {
        while (std::optional<userintent::WatchEvent> event = watch_.Next()) {
          const std::lock_guard<std::mutex> lock(mu_);
          events_.push_back(Of(*event));
          changed_.notify_all();
        }
        const std::lock_guard<std::mutex> lock(mu_);
        end_ = watch_.status();
        changed_.notify_all();
      }) {}

Watching::~Watching() {
  watch_.Cancel();
  thread_.join();
}

Outcome Watching::Next() {
  std::unique_lock<std::mutex> lock(mu_);
  if (!changed_.wait_for(lock, kEventPatience, [this] { return !events_.empty() || end_.has_value(); })) {
    throw Failure("no such event");
  }
  if (events_.empty()) throw Failure("the watch ended: " + end_->ToString());
  Outcome event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Watching::Stop() {
  watch_.Cancel();
  std::unique_lock<std::mutex> lock(mu_);
  if (!changed_.wait_for(lock, kStopPatience, [this] { return end_.has_value(); })) {
    throw Failure("the watch does not stop");
  }
}

absl::Status Watching::Ended() {
  std::unique_lock<std::mutex> lock(mu_);
  if (!changed_.wait_for(lock, kEndPatience, [this] { return end_.has_value(); })) {
    throw Failure("the watch does not end");
  }
  return *end_;
}
