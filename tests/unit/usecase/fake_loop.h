// A loop whose clock moves only when the test says so. One thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>
#include <vector>

#include "server/base/loop.h"

namespace userintent::usecase {

class FakeLoop final : public Loop {
 public:
  void Post(Task task) override { posted_.push_back(std::move(task)); }
  SteadyTime Now() const override { return now_; }
  TimerId CallAt(SteadyTime when, Task task) override {
    timers_.emplace(std::pair(when, ++last_), std::move(task));
    return last_;
  }
  void CancelTimer(TimerId id) override {
    std::erase_if(timers_, [id](const auto& timer) { return timer.first.second == id; });
  }

  void Settle() {
    while (!posted_.empty()) {
      auto tasks = std::exchange(posted_, {});
      for (Task& task : tasks) task();
    }
  }
  // The task that was posted first runs alone.
  void Step() {
    if (posted_.empty()) return;
    Task task = std::move(posted_.front());
    posted_.erase(posted_.begin());
    task();
  }
  void Advance(SteadyClock::duration by) {
    const SteadyTime end = now_ + by;
    Settle();
    while (!timers_.empty() && timers_.begin()->first.first <= end) {
      auto node = timers_.extract(timers_.begin());
      now_ = std::max(now_, node.key().first);
      node.mapped()();
      Settle();
    }
    now_ = end;
  }
  // What is due runs, but nothing that it posts.
  void AdvanceWithoutSettling(SteadyClock::duration by) {
    now_ += by;
    while (!timers_.empty() && timers_.begin()->first.first <= now_) timers_.extract(timers_.begin()).mapped()();
  }
  size_t timers() const { return timers_.size(); }

 private:
  SteadyTime now_{std::chrono::hours(1)};
  TimerId last_ = 0;
  std::vector<Task> posted_;
  std::map<std::pair<SteadyTime, TimerId>, Task> timers_;
};

}  // namespace userintent::usecase
