// Shard: one thread that owns a completion queue, its calls, its HTTP client with all connections, and its timers.
//
// Nothing in it is shared, so nothing in it is locked, except the inbox through which other threads hand it tasks
// (Post). It blocks in the completion queue. Who posts rings the queue with a grpc::Alarm; so does a helper thread that
// waits for the upstream's sockets and does nothing else. Measured: one thread that owns everything costs 66 us of
// CPU a call where callbacks with a loop thread cost 92-122; waking other threads is what costs.
//
// Life: constructed with a queue of the ServerBuilder; Start() after the server is built; Stop() after
// grpc::Server::Shutdown has returned. server.cc owns it. The http::Client given must outlive the Shard's thread, and
// belongs to it from Start() to Stop().
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/http/client.h"

namespace userintent::rpc {

// What travels through the completion queue.
class Tag {
 public:
  // Runs on the shard's thread. May destroy the tag.
  virtual void Proceed(bool ok) = 0;

 protected:
  ~Tag() = default;
};

// A tag that is a member of its owner and calls it.
template <typename Owner, void (Owner::*handler)(bool)>
class MemberTag final : public Tag {
 public:
  explicit MemberTag(Owner* owner) : owner_(owner) {}
  void Proceed(bool ok) override { (owner_->*handler)(ok); }

 private:
  Owner* const owner_;
};

class Shard final : public Loop {
 public:
  // What `top -H` calls its thread.
  static constexpr char kThreadName[] = "shard";

  Shard(std::unique_ptr<grpc::ServerCompletionQueue> queue, http::Client& http);
  ~Shard() override;

  // Runs `first`, which posts the calls, and starts the threads. In this order: a call that is posted after Stop()
  // would end the process, and a start that fails elsewhere stops at once.
  void Start(Task first);

  // After the server has shut down: waits until every call has ended, drains the queue and ends both threads. Tasks
  // posted later never run.
  void Stop();

  // A member of every call. While there is one, the queue stays open: libgrpc ends the process when an operation is
  // begun on a queue that was shut down, and a call that the server's end cancelled still has to be finished. Made and
  // destroyed on the shard's thread, or before there is one.
  class CallMark {
   public:
    explicit CallMark(Shard& shard) : shard_(shard) { ++shard_.calls_; }
    ~CallMark() { --shard_.calls_; }
    CallMark(const CallMark&) = delete;
    CallMark& operator=(const CallMark&) = delete;

   private:
    Shard& shard_;
  };

  grpc::ServerCompletionQueue& queue() { return *queue_; }

  // Loop.
  void Post(Task task) override;
  SteadyTime Now() const override { return now_; }
  TimerId CallAt(SteadyTime when, Task task) override;
  void CancelTimer(TimerId id) override;

 private:
  void OnRing(bool) { rung_ = true; }
  void OnPosted(bool);
  void OnStop(bool) { ending_ = true; }
  void Run();
  void RunHelper();
  void RunPosted();
  void RunTimers();

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  http::Client& http_;

  // The shard thread's own.
  SteadyTime now_ = SteadyClock::now();
  std::map<std::pair<SteadyTime, TimerId>, Task> timers_;
  std::map<TimerId, SteadyTime> timer_times_;
  TimerId next_timer_ = 1;
  std::vector<Task> local_;  // posted by the shard's thread itself: no lock, no wake-up
  bool rung_ = false;
  int calls_ = 0;           // that exist, those that wait for a request included
  bool ending_ = false;     // the queue is to be shut down as soon as there is no call
  bool shut_down_ = false;  // it is
  MemberTag<Shard, &Shard::OnStop> stop_tag_{this};

  // Shared with posters.
  Mutex inbox_mutex_;
  std::vector<Task> inbox_ ABSL_GUARDED_BY(inbox_mutex_);
  bool posted_ ABSL_GUARDED_BY(inbox_mutex_) = false;  // the queue was rung for it, and has not told yet
  bool closed_ ABSL_GUARDED_BY(inbox_mutex_) = false;  // no operation may begin on the queue any more
  grpc::Alarm post_alarm_ ABSL_GUARDED_BY(inbox_mutex_);
  MemberTag<Shard, &Shard::OnPosted> post_tag_{this};

  // Shared with the helper.
  int wait_fd_ = -1;    // epoll: the upstream's sockets and end_event_
  int end_event_ = -1;  // eventfd, written by Stop()
  grpc::Alarm alarm_;
  grpc::Alarm stop_alarm_;  // of Stop(), when the helper is gone
  MemberTag<Shard, &Shard::OnRing> ring_{this};
  std::atomic<uint32_t> turns_{0};  // counts turns that dealt with a ring; the helper waits for it to move
  std::atomic<bool> stopping_{false};

  std::atomic<std::thread::id> thread_id_{};
  std::thread thread_;
  std::thread helper_;
};

}  // namespace userintent::rpc
