// Signals, each in a process of its own: the order to stop, the second one, and the watchdog over a process that hangs.
#include "server/app/signals.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

#include "server/observe/log.h"

namespace userintent {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

// A process whose stderr is a pipe.
class Child {
 public:
  explicit Child(const std::function<void()>& run) {
    EXPECT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ != 0) {
      close(pipe_[1]);
      return;
    }
    dup2(pipe_[1], 2);
    run();
    _exit(7);
  }
  ~Child() { close(pipe_[0]); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void Signal(int number) const { EXPECT_EQ(kill(pid_, number), 0); }

  // Until it has written so many bytes.
  void Await(size_t size) {
    while (text_.size() < size && Read()) {
    }
  }
  // How it ended.
  int Status() const {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status);
  }
  // All that it wrote, after its end.
  std::string Text() {
    while (Read()) {
    }
    return text_;
  }

 private:
  bool Read() {
    char buffer[4096];
    const ssize_t n = read(pipe_[0], buffer, sizeof buffer);
    if (n > 0) text_.append(buffer, static_cast<size_t>(n));
    return n > 0;
  }

  int pipe_[2] = {-1, -1};
  pid_t pid_ = 0;
  std::string text_;
};

void Say(const char* text) { EXPECT_EQ(write(2, text, std::strlen(text)), static_cast<ssize_t>(std::strlen(text))); }

// A watchdog that fails lets it go after a minute.
void Hang() { std::this_thread::sleep_for(seconds(60)); }

TEST(SignalsTest, TheWatchdogEndsWhatHangs) {
  Child child([] {
    new Signals(milliseconds(300));
    observe::StartLog();
    Say("!");
    Hang();
  });
  child.Await(1);
  child.Signal(SIGTERM);
  EXPECT_EQ(child.Status(), Signals::kEndedByWatchdog);
  EXPECT_THAT(child.Text(), HasSubstr(R"("level":"error","event":"ended_by_watchdog","signal":15})"));
}

// Neither the line nor who is stuck in writing one keeps it.
TEST(SignalsTest, TheWatchdogWaitsForNoReaderOfTheLog) {
  Child child([] {
    new Signals(milliseconds(300));
    Say("!");
    alarm(60);
    for (;;) observe::Log(observe::Level::kInfo, "chatter", {});  // directly: there is no queue before StartLog
  });
  child.Await(1);
  child.Signal(SIGINT);
  EXPECT_EQ(child.Status(), Signals::kEndedByWatchdog);
}

TEST(SignalsTest, NothingEndsThatWasNotTold) {
  Child child([] {
    Signals& signals = *new Signals(milliseconds(1));
    Say("!");
    if (signals.Next(seconds(60)) != Signals::Wish::kReload) _exit(1);
    if (signals.Next(milliseconds(300)) != Signals::Wish::kNone) _exit(2);
  });
  child.Await(1);
  child.Signal(SIGHUP);
  EXPECT_EQ(child.Status(), 7);
}

// Files that are read again are no reason to wait longer.
TEST(SignalsTest, TheTimeBeginsWithTheFirstOrder) {
  Child child([] {
    Signals& signals = *new Signals(seconds(1));
    Say("!");
    if (signals.Next(seconds(60)) != Signals::Wish::kStop) _exit(1);
    for (int i = 0; i < 400; ++i) {  // longer than the watchdog may take
      kill(getpid(), SIGHUP);
      std::this_thread::sleep_for(milliseconds(50));
    }
  });
  child.Await(1);
  child.Signal(SIGTERM);
  EXPECT_EQ(child.Status(), Signals::kEndedByWatchdog);
}

TEST(SignalsTest, ASecondOrderEndsItAtOnce) {
  Child child([] {
    Signals& signals = *new Signals(seconds(600));
    Say("!");
    if (signals.Next(seconds(60)) != Signals::Wish::kStop) _exit(1);
    std::this_thread::sleep_for(milliseconds(300));  // sooner it would be the same one
    Say("!");
    Hang();
  });
  child.Await(1);
  child.Signal(SIGTERM);
  child.Await(2);
  child.Signal(SIGINT);
  EXPECT_EQ(child.Status(), 128 + SIGINT);
  EXPECT_THAT(child.Text(), HasSubstr(R"("event":"ended_at_once","signal":2})"));
}

}  // namespace
}  // namespace userintent
