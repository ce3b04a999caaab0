#include "server/rpc/shard.h"

#include <grpc/support/time.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "server/observe/log.h"

namespace userintent::rpc {
namespace {

constexpr int kEventsPerTurn = 256;
constexpr auto kLongestSleep = std::chrono::seconds(1);

gpr_timespec After(SteadyClock::duration wait) {
  if (wait <= SteadyClock::duration::zero()) return gpr_inf_past(GPR_CLOCK_MONOTONIC);
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(wait).count();
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(ns, GPR_TIMESPAN));
}

}  // namespace

Shard::Shard(std::unique_ptr<grpc::ServerCompletionQueue> queue, http::Client& http)
    : queue_(std::move(queue)), http_(http) {
  end_event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  wait_fd_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  if (end_event_ < 0 || wait_fd_ < 0 || epoll_ctl(wait_fd_, EPOLL_CTL_ADD, end_event_, &event) != 0 ||
      epoll_ctl(wait_fd_, EPOLL_CTL_ADD, http_.PollFd(), &event) != 0) {
    std::abort();  // out of descriptors before the first call: nothing can be served
  }
}

Shard::~Shard() {
  Stop();
  close(wait_fd_);
  close(end_event_);
}

void Shard::Start(Task first) {
  first();
  thread_ = std::thread([this] { Run(); });
  helper_ = std::thread([this] { RunHelper(); });
}

void Shard::Stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  (void)!write(end_event_, &one, sizeof one);
  turns_.fetch_add(1, std::memory_order_release);
  turns_.notify_all();
  helper_.join();  // first: an alarm must not be set on a queue that was shut down
  stop_alarm_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Tag*>(&stop_tag_));
  thread_.join();
}

void Shard::Post(Task task) {
  if (thread_id_.load(std::memory_order_relaxed) == std::this_thread::get_id()) {
    local_.push_back(std::move(task));
    return;
  }
  const MutexLock lock(inbox_mutex_);
  inbox_.push_back(std::move(task));
  if (closed_ || std::exchange(posted_, true)) return;
  post_alarm_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Tag*>(&post_tag_));
}

// What was posted runs in this turn. Who posts from now on must ring again.
void Shard::OnPosted(bool) {
  const MutexLock lock(inbox_mutex_);
  posted_ = false;
}

Loop::TimerId Shard::CallAt(SteadyTime when, Task task) {
  const TimerId id = next_timer_++;
  timers_.emplace(std::pair(when, id), std::move(task));
  timer_times_.emplace(id, when);
  return id;
}

void Shard::CancelTimer(TimerId id) {
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

void Shard::RunTimers() {
  while (!timers_.empty() && timers_.begin()->first.first <= now_) {
    auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
}

void Shard::RunPosted() {
  std::vector<Task> tasks;
  {
    const MutexLock lock(inbox_mutex_);
    tasks.swap(inbox_);
  }
  for (Task& task : tasks) task();
  // Tasks that tasks post run in the same turn, but not without end: the queue gets its turn as well.
  for (int round = 0; round < 8 && !local_.empty(); ++round) {
    tasks.clear();
    tasks.swap(local_);
    for (Task& task : tasks) task();
  }
}

// noexcept: an exception that reaches this point is a bug that no reply can hide, and the process ends here rather
// than in a state that no code is written for. Rows that are SENDING become UNKNOWN at the next start.
void Shard::Run() {
  thread_id_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  pthread_setname_np(pthread_self(), kThreadName);
  const auto turn = [this]() noexcept {
    SteadyClock::duration wait = kLongestSleep;
    if (!local_.empty()) wait = SteadyClock::duration::zero();
    if (!timers_.empty()) wait = std::min(wait, timers_.begin()->first.first - SteadyClock::now());
    if (const auto next = http_.NextTimer()) wait = std::min(wait, *next - SteadyClock::now());

    void* tag = nullptr;
    bool ok = false;
    auto status = queue_->AsyncNext(&tag, &ok, After(wait));
    now_ = SteadyClock::now();
    const observe::LinesTogether lines;
    for (int events = 0; status == grpc::CompletionQueue::GOT_EVENT;) {
      static_cast<Tag*>(tag)->Proceed(ok);
      if (++events == kEventsPerTurn) break;
      status = queue_->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    }

    RunPosted();
    RunTimers();
    http_.Turn();
    RunPosted();  // what the exchanges that ended left to do
    if (std::exchange(rung_, false)) {
      turns_.fetch_add(1, std::memory_order_release);
      turns_.notify_one();
    }
    if (ending_ && calls_ == 0 && !std::exchange(shut_down_, true)) {
      {
        const MutexLock lock(inbox_mutex_);
        closed_ = true;
      }
      queue_->Shutdown();
    }
    return status != grpc::CompletionQueue::SHUTDOWN;
  };
  while (turn()) {
  }
}

void Shard::RunHelper() {
  pollfd wait{wait_fd_, POLLIN, 0};
  while (!stopping_.load(std::memory_order_acquire)) {
    poll(&wait, 1, -1);
    if (stopping_.load(std::memory_order_acquire)) return;
    const uint32_t seen = turns_.load(std::memory_order_acquire);
    alarm_.Set(queue_.get(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Tag*>(&ring_));
    turns_.wait(seen, std::memory_order_acquire);
  }
}

}  // namespace userintent::rpc
