// Exchanges: all exchanges of one client, and what becomes of them in time: waiting to be sent, under way, ended.
//
// T derives from Exchange and has a member `Link<T> in_waiting`. An exchange waits from Add() until LeaveWaiting(); one
// that does not wait is under way. Two deadlines hold. An exchange ends after `exchange_timeout`. One that waits ends
// after `connect_timeout`, unless others are under way: then the connections are healthy and merely busy, while with
// none under way a handshake or look-up gets nowhere. Belongs to the client's thread.
#pragma once

#include <algorithm>
#include <iterator>
#include <list>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/base/loop.h"
#include "server/http/client.h"
#include "server/http/exchange.h"

namespace userintent::http {

template <class T>
struct Link {
  T* previous = nullptr;
  T* next = nullptr;
  bool joined = false;
};

// A list through its elements, in order of joining; each is in it at most once. Joining and leaving allocate nothing.
template <class T, Link<T> T::*kLink>
class LinkedList {
 public:
  T* front() const { return first_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  static bool Has(const T& element) { return (element.*kLink).joined; }

  void Join(T& element) {
    element.*kLink = {last_, nullptr, true};
    (last_ == nullptr ? first_ : (last_->*kLink).next) = &element;
    last_ = &element;
    ++size_;
  }
  void Leave(T& element) {  // does nothing if it is not in
    Link<T>& link = element.*kLink;
    if (!link.joined) return;
    (link.previous == nullptr ? first_ : (link.previous->*kLink).next) = link.next;
    (link.next == nullptr ? last_ : (link.next->*kLink).previous) = link.previous;
    link = {};
    --size_;
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
  size_t size_ = 0;
};

template <class T>
class Exchanges {
 public:
  explicit Exchanges(const Options& options)
      : exchange_timeout_(options.exchange_timeout), connect_timeout_(options.connect_timeout) {}
  ~Exchanges() {
    for (T& exchange : all_) exchange.WipeRequest();
  }
  Exchanges(const Exchanges&) = delete;
  Exchanges& operator=(const Exchanges&) = delete;

  // One more, which waits. Its place in memory stays.
  T& Add(Client::Done done) {
    T& exchange = all_.emplace_back();
    exchange.id = ++last_id_;
    exchange.done = std::move(done);
    exchange.start = SteadyClock::now();
    by_id_.emplace(exchange.id, std::prev(all_.end()));
    Wait(exchange, exchange.start);
    return exchange;
  }
  T* Find(Client::ExchangeId id) {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &*found->second;
  }

  void Wait(T& exchange, SteadyTime since) {
    exchange.waiting_since = since;
    waiting_.Join(exchange);
  }
  void LeaveWaiting(T& exchange) { waiting_.Leave(exchange); }
  T* FirstWaiting() const { return waiting_.front(); }
  size_t waiting() const { return waiting_.size(); }
  size_t under_way() const { return all_.size() - waiting_.size(); }
  std::list<T>& all() { return all_; }  // in order of `start`

  // The exchange ended, and its outcome is decided: Deliver() hands it over. The exchange is gone.
  void MoveToEnded(T& exchange) {
    ended_.emplace_back(std::move(exchange.done), std::move(exchange.outcome));
    Remove(exchange);
  }
  // Another client has taken the request and `done`. The exchange is gone.
  void Remove(T& exchange) {
    const bool was_under_way = !Waiting::Has(exchange);
    waiting_.Leave(exchange);
    const auto found = by_id_.find(exchange.id);
    all_.erase(found->second);
    by_id_.erase(found);
    if (was_under_way && under_way() == 0) idle_since_ = SteadyClock::now();
  }

  // Runs `done` of what has ended. What these end is for the next call.
  void Deliver() {
    std::vector<std::pair<Client::Done, Outcome>> ended;
    ended.swap(ended_);
    for (auto& [done, outcome] : ended) done(std::move(outcome));
  }
  bool HasEnded() const { return !ended_.empty(); }

  // Until when the first of those that wait may wait; nullopt: until its exchange timeout.
  std::optional<SteadyTime> WaitDeadline() const {
    if (waiting_.empty() || under_way() > 0) return std::nullopt;
    return std::max(waiting_.front()->waiting_since, idle_since_) + connect_timeout_;
  }
  std::optional<SteadyTime> NextDeadline() const {
    const std::optional<SteadyTime> wait = WaitDeadline();
    if (all_.empty()) return wait;
    const SteadyTime timeout = all_.front().start + exchange_timeout_;
    return wait ? std::min(*wait, timeout) : timeout;
  }
  // Each of these calls `end` for what has had its time; it must end the exchange.
  template <class EndOne>
  void EndTimedOut(SteadyTime now, EndOne end) {
    while (!all_.empty() && all_.front().start + exchange_timeout_ <= now) end(all_.front());
  }
  template <class EndOne>
  void EndTiredOfWaiting(SteadyTime now, EndOne end) {
    for (auto deadline = WaitDeadline(); deadline && *deadline <= now; deadline = WaitDeadline()) {
      end(*waiting_.front());
    }
  }

 private:
  using Waiting = LinkedList<T, &T::in_waiting>;

  const SteadyClock::duration exchange_timeout_;
  const SteadyClock::duration connect_timeout_;
  Client::ExchangeId last_id_ = 0;
  std::list<T> all_;
  std::unordered_map<Client::ExchangeId, typename std::list<T>::iterator> by_id_;
  Waiting waiting_;
  SteadyTime idle_since_{};  // when the last exchange under way ended
  std::vector<std::pair<Client::Done, Outcome>> ended_;
};

}  // namespace userintent::http
