// Exchanges: all exchanges of one client, and what becomes of them in time: waiting to be sent, under way, ended; or
// late, which is what an exchange that had its time may be before it ends.
//
// T derives from Exchange and has a member `Link<T> in_waiting`, and knows RequestLeft(): all of the request has been
// handed over. An exchange waits from Add() until LeaveWaiting(); one that does not wait is under way, until it ends or
// is late. Three deadlines hold. An exchange ends, or is late, after `exchange_timeout`. One that waits ends after
// `connect_timeout`, unless others are under way: then the connections are healthy and merely busy, while with none
// under way a handshake or look-up gets nowhere. One that is late ends `late_window` after its timeout. Belongs to the
// client's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <list>
#include <optional>
#include <string_view>
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
      : exchange_timeout_(options.exchange_timeout),
        connect_timeout_(options.connect_timeout),
        late_window_(options.late_window),
        max_late_(options.max_late) {}
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
  bool empty() const { return by_id_.empty(); }  // of late ones, too
  size_t under_way() const { return all_.size() - waiting_.size(); }
  std::list<T>& all() { return all_; }    // in order of `start`, without the late ones
  std::list<T>& late() { return late_; }  // in order of `start`
  size_t CountLate() const { return late_.size(); }
  // Calls `see` for each, which may end it.
  template <class See>
  void ForEach(See see) {
    for (std::list<T>* const list : {&late_, &all_}) {
      for (auto at = list->begin(); at != list->end();) see(*at++);
    }
  }

  // The exchange ended, and its outcome is decided: Deliver() hands it over. The exchange is gone.
  void MoveToEnded(T& exchange) {
    if (exchange.late == Exchange::Late::kNo) {
      ended_.emplace_back(std::move(exchange.done), std::move(exchange.outcome));
    } else if (exchange.outcome.fate == Fate::kAnswered || exchange.outcome.fate == Fate::kRefused) {
      ended_.emplace_back(std::move(exchange.request.on_late), std::move(exchange.outcome));
    } else {
      ++(exchange.late == Exchange::Late::kOver      ? late_silent_
         : exchange.late == Exchange::Late::kGaveWay ? late_gave_way_
                                                     : late_lost_);
    }
    Remove(exchange);
  }
  // Another client has taken the request and `done`. The exchange is gone.
  void Remove(T& exchange) {
    const bool late = exchange.late != Exchange::Late::kNo;
    const bool was_under_way = !late && !Waiting::Has(exchange);
    waiting_.Leave(exchange);
    const auto found = by_id_.find(exchange.id);
    (late ? late_ : all_).erase(found->second);
    by_id_.erase(found);
    if (was_under_way) TakeIdle();
  }

  // ---- late ones

  // Whether an exchange that has had its time is to be listened to. One whose request has not left as a whole is not:
  // the rest must not follow now that the caller has heard of a timeout.
  bool MayListen(const T& exchange) const {
    return late_window_ > SteadyClock::duration::zero() && max_late_ > 0 && exchange.request.on_late != nullptr &&
           exchange.sending == Exchange::Sending::kMaybeSent && exchange.RequestLeft();
  }
  // `done` gets what is known so far.
  void MoveToLate(T& exchange, std::string_view detail) {
    ended_.emplace_back(std::move(exchange.done), exchange.SoFar(detail));
    exchange.WipeRequest();
    exchange.late = Exchange::Late::kListening;
    late_.splice(late_.end(), all_, by_id_.find(exchange.id)->second);
    TakeIdle();
  }
  // These call `end` for what is not to be listened to any longer; it must end the exchange.
  template <class EndOne>
  void EndOldLate(SteadyTime now, EndOne end) {
    while (!late_.empty() && LateDeadline(late_.front()) <= now) EndLate(late_.front(), Exchange::Late::kOver, end);
    while (late_.size() > max_late_) EndLate(late_.front(), Exchange::Late::kGaveWay, end);
  }
  // Up to `places`, the oldest first, of those whose end makes a place.
  template <class MakesPlace, class EndOne>
  void MakeWay(size_t places, MakesPlace makes_place, EndOne end) {
    for (auto at = late_.begin(); places > 0 && at != late_.end();) {
      T& exchange = *at++;
      if (!makes_place(exchange)) continue;
      EndLate(exchange, Exchange::Late::kGaveWay, end);
      --places;
    }
  }
  void CountInto(Stats& stats) const {
    stats.late_now = late_.size();
    stats.late_silent = late_silent_;
    stats.late_lost = late_lost_;
    stats.late_gave_way = late_gave_way_;
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
    std::optional<SteadyTime> next = WaitDeadline();
    const auto consider = [&next](SteadyTime when) {
      if (!next || when < *next) next = when;
    };
    if (!all_.empty()) consider(all_.front().start + exchange_timeout_);
    if (!late_.empty()) consider(LateDeadline(late_.front()));
    return next;
  }
  // Each of these calls `end` for what has had its time; it must end the exchange, or make it late.
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

  SteadyTime LateDeadline(const T& exchange) const { return exchange.start + exchange_timeout_ + late_window_; }
  template <class EndOne>
  static void EndLate(T& exchange, Exchange::Late why, EndOne& end) {
    exchange.late = why;
    end(exchange);
  }
  void TakeIdle() {
    if (under_way() == 0) idle_since_ = SteadyClock::now();
  }

  const SteadyClock::duration exchange_timeout_;
  const SteadyClock::duration connect_timeout_;
  const SteadyClock::duration late_window_;
  const size_t max_late_;
  Client::ExchangeId last_id_ = 0;
  std::list<T> all_;
  std::list<T> late_;
  uint64_t late_silent_ = 0;  // see Stats
  uint64_t late_lost_ = 0;
  uint64_t late_gave_way_ = 0;
  std::unordered_map<Client::ExchangeId, typename std::list<T>::iterator> by_id_;
  Waiting waiting_;
  SteadyTime idle_since_{};  // when the last exchange under way ended
  std::vector<std::pair<Client::Done, Outcome>> ended_;
};

}  // namespace userintent::http
