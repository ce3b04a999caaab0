#include "server/app/signals.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <exception>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "server/app/server.h"
#include "server/observe/log.h"

namespace userintent {
namespace {

constexpr auto kHouseKeeping = std::chrono::milliseconds(200);
// A terminal and a script that both pass on one Ctrl-C send it twice within a moment, and mean it once.
constexpr auto kSameWish = std::chrono::milliseconds(200);
constexpr auto kLastLine = std::chrono::milliseconds(500);

// The line is written by a thread that may wait for as long as it likes: for a reader of stderr, or for whoever is
// stuck in the log. The end does not.
[[noreturn]] void End(int status, void (*say)(int number), int number) {
  try {
    auto said = std::make_shared<std::promise<void>>();
    std::future<void> done = said->get_future();
    std::thread([said = std::move(said), say, number] {
      say(number);
      observe::StopLog(kLastLine);
      said->set_value();
    }).detach();
    done.wait_for(2 * kLastLine);
  } catch (const std::exception&) {  // no memory, or no thread more: without the line
  }
  _exit(status);
}

void SayAtOnce(int number) { observe::Log(observe::Level::kError, "ended_at_once", {{"signal", number}}); }

void SayHangs(int number) { observe::Log(observe::Level::kError, "ended_by_watchdog", {{"signal", number}}); }

timespec SpecOf(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {static_cast<time_t>(seconds.count()), static_cast<long>((time - seconds).count())};
}

}  // namespace

Signals::Signals(std::chrono::nanoseconds longest) : longest_(longest) {
  sigemptyset(&set_);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&set_, number);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  std::thread([this] { Run(); }).detach();
}

Signals::Wish Signals::Next(std::chrono::milliseconds wait) {
  const auto end = Clock::now() + wait;
  const MutexLock lock(mutex_);
  while (!stop_ && !reload_ && came_.WaitUntil(mutex_, end)) continue;
  if (stop_) return Wish::kStop;
  return std::exchange(reload_, false) ? Wish::kReload : Wish::kNone;
}

void Signals::Run() {
  for (;;) {
    const std::optional<int> number = Take();
    if (!number) End(kEndedByWatchdog, SayHangs, told_by_);
    Took(*number);
  }
}

std::optional<int> Signals::Take() {
  for (;;) {
    int number = -1;
    if (told_) {
      const std::chrono::nanoseconds left = *told_ + longest_ - Clock::now();
      if (left <= left.zero()) return std::nullopt;
      const timespec wait = SpecOf(left);
      number = sigtimedwait(&set_, nullptr, &wait);
    } else {
      number = sigwaitinfo(&set_, nullptr);
    }
    if (number > 0) return number;  // otherwise the time is up, or a debugger came by
  }
}

void Signals::Took(int number) {
  const Clock::time_point now = Clock::now();
  const bool stop = number == SIGTERM || number == SIGINT;
  if (number == SIGQUIT || (stop && told_ && now - *told_ > kSameWish)) End(128 + number, SayAtOnce, number);
  if (stop && !told_) {
    told_ = now;
    told_by_ = number;
  }
  const MutexLock lock(mutex_);
  (stop ? stop_ : reload_) = true;
  came_.NotifyOne();
}

void ServeUntilStopped(Server& server, Signals& signals) {
  for (;;) {
    const Signals::Wish wish = signals.Next(kHouseKeeping);
    if (wish == Signals::Wish::kStop) break;
    if (wish == Signals::Wish::kReload) server.ReloadFiles();
    server.HouseKeep();
  }
  server.Drain();
}

}  // namespace userintent
