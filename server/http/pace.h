// Pace: how many exchanges a connection of this client is trusted with, as refusals have taught.
//
// A peer that refuses streams took fewer than its SETTINGS promised: at once (REFUSED_STREAM), or in all, because it
// changes connections after some requests (GOAWAY with a last stream). What it did take is then the limit for every
// connection, so that those who try again are spread over several instead of all meeting the next refusal together.
// The limit doubles with every second without a refusal, so one wrong lesson is soon forgotten. Belongs to one client.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "server/base/loop.h"

namespace userintent::http {

class Pace {
 public:
  static constexpr size_t kNoLimit = SIZE_MAX;

  // A stream was refused while `open` others stayed on the connection.
  void OnRefused(size_t open, SteadyTime now) { at_once_.Learn(open, now); }
  // A connection took `taken` exchanges in all and refused what came after. None: it just went, which teaches nothing.
  void OnGoAway(size_t taken, SteadyTime now) {
    if (taken > 0) in_all_.Learn(taken, now);
  }

  // When a limit is lifted next; nullopt: there is none.
  std::optional<SteadyTime> NextLift() const {
    const auto a = at_once_.NextLift(), b = in_all_.NextLift();
    return a && b ? std::min(a, b) : a ? a : b;
  }

  size_t AtOnce(SteadyTime now) { return at_once_.Now(now); }
  size_t InAll(SteadyTime now) { return in_all_.Now(now); }

 private:
  class Lesson {
   public:
    void Learn(size_t n, SteadyTime now) {
      limit_ = std::min(Now(now), std::max<size_t>(n, 1));
      since_ = now;
    }
    size_t Now(SteadyTime now) {
      for (; limit_ != kNoLimit && now >= since_ + kForgetting; since_ += kForgetting) {
        limit_ = limit_ < kForgotten ? limit_ * 2 : kNoLimit;
      }
      return limit_;
    }
    std::optional<SteadyTime> NextLift() const {
      if (limit_ == kNoLimit) return std::nullopt;
      return since_ + kForgetting;
    }

   private:
    static constexpr std::chrono::seconds kForgetting{1};
    static constexpr size_t kForgotten = 1024;  // more than any connection carries at once
    size_t limit_ = kNoLimit;
    SteadyTime since_{};
  };

  Lesson at_once_;
  Lesson in_all_;
};

}  // namespace userintent::http
