#include "server/rpc/port_probe.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace userintent::rpc {
namespace {

using std::chrono::milliseconds;

// A port whose connections the kernel takes in. What becomes of them is the test's word: greeted with one byte after
// they said something, or left alone, as by a server that is deaf.
class Port {
 public:
  explicit Port(bool waits_for_hello) : waits_for_hello_(waits_for_hello) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 64), 0);
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    number = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~Port() {
    stopping_ = true;
    thread_.join();
    close(listener_);
  }

  uint16_t number = 0;
  std::atomic<bool> answers{true};
  std::atomic<bool> tls_hello{false};  // the last hello was one of TLS
  std::atomic<uint16_t> came_from{0};

 private:
  void Run() {
    while (!stopping_) {
      std::this_thread::sleep_for(milliseconds(1));
      if (!answers) continue;
      sockaddr_in peer{};
      socklen_t size = sizeof peer;
      const int fd = accept(listener_, reinterpret_cast<sockaddr*>(&peer), &size);
      if (fd < 0) continue;
      came_from = ntohs(peer.sin_port);
      char hello[6] = "";
      if (waits_for_hello_ && recv(fd, hello, sizeof hello, MSG_WAITALL) == sizeof hello) {
        tls_hello = hello[0] == 22 && hello[5] == 1;  // a handshake record with a ClientHello
      }
      (void)!send(fd, "x", 1, MSG_NOSIGNAL);
      close(fd);
    }
  }

  const bool waits_for_hello_;
  int listener_ = -1;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

PortProbeOptions Quick(uint16_t port, bool tls) {
  PortProbeOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.tls = tls;
  options.every = milliseconds(10);
  options.patience = milliseconds(200);
  return options;
}

bool Becomes(const PortProbe& probe, bool alive) {
  for (int i = 0; i < 2000 && probe.alive() != alive; ++i) std::this_thread::sleep_for(milliseconds(10));
  return probe.alive() == alive;
}

class PortProbeTest : public testing::TestWithParam<bool> {};

TEST_P(PortProbeTest, APortThatStopsAnsweringIsDeafUntilItAnswersAgain) {
  const bool tls = GetParam();
  Port port(tls);
  const PortProbe probe(Quick(port.number, tls));
  while (port.came_from == 0) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_TRUE(probe.alive());
  port.answers = false;  // connections still succeed: the kernel takes them in
  EXPECT_TRUE(Becomes(probe, false));
  port.answers = true;
  EXPECT_TRUE(Becomes(probe, true));
  EXPECT_EQ(port.tls_hello, tls);
}

INSTANTIATE_TEST_SUITE_P(, PortProbeTest, testing::Bool());

TEST(PortProbe, APortThatAnswersWhileItsCallsDoNotIsDeaf) {
  Port port(false);
  std::atomic<bool> answered{true};
  PortProbeOptions options = Quick(port.number, false);
  options.call = [&](milliseconds patience) {
    EXPECT_GT(patience, milliseconds(0));
    EXPECT_LE(patience, milliseconds(200));
    return answered.load();
  };
  const PortProbe probe(options);
  while (port.came_from == 0) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_TRUE(probe.alive());
  answered = false;
  EXPECT_TRUE(Becomes(probe, false));
  answered = true;
  EXPECT_TRUE(Becomes(probe, true));
}

TEST(PortProbe, OneSilenceIsABusyMachineAndNotADeafPort) {
  Port port(false);
  PortProbeOptions options = Quick(port.number, false);
  options.patience = milliseconds(100);
  options.silences = 1000000;
  const PortProbe probe(options);
  port.answers = false;
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_TRUE(probe.alive());
}

// Else a deaf port would be found out later than the 10 s in which /livez has to know.
TEST(PortProbe, AfterASilenceItAsksAgainAtOnce) {
  Port port(false);
  port.answers = false;
  std::mutex mutex;
  std::vector<std::chrono::steady_clock::time_point> asked;
  PortProbeOptions options = Quick(port.number, false);
  options.every = options.patience = milliseconds(500);
  options.announce = [&](uint16_t) {
    const std::lock_guard lock(mutex);
    asked.push_back(std::chrono::steady_clock::now());
  };
  PortProbe probe(options);
  const auto times = [&] {
    const std::lock_guard lock(mutex);
    return asked.size();
  };
  while (times() < 4) std::this_thread::sleep_for(milliseconds(5));
  probe.Stop();
  std::chrono::steady_clock::duration least = std::chrono::hours(1);
  for (size_t i = 1; i < asked.size(); ++i) least = std::min(least, asked[i] - asked[i - 1]);
  EXPECT_LT(least, milliseconds(900));  // not one after the other
}

TEST(PortProbe, NobodyListens) {
  uint16_t number = 0;
  {
    const Port port(false);
    number = port.number;
  }
  const PortProbe probe(Quick(number, false));
  EXPECT_TRUE(Becomes(probe, false));
}

// A container may be without ::1, and then IPv4 is where callers come from.
TEST(PortProbe, APortOnEveryAddressIsFoundInEitherFamily) {
  for (const char* host : {"::", "0.0.0.0", "localhost"}) {
    Port port(false);  // at 127.0.0.1 alone
    PortProbeOptions options = Quick(port.number, false);
    options.host = host;
    options.silences = 1;
    const PortProbe probe(options);
    for (int came = 0; came < 3; ++came) {
      while (port.came_from == 0 && probe.alive()) std::this_thread::sleep_for(milliseconds(1));
      port.came_from = 0;
      ASSERT_TRUE(probe.alive()) << host;
    }
  }
}

TEST(PortProbe, ItTellsWhereItComesFromBeforeItComes) {
  Port port(false);
  std::atomic<uint16_t> told{0};
  PortProbeOptions options = Quick(port.number, false);
  options.every = milliseconds(50);
  options.announce = [&](uint16_t from) {
    port.came_from = 0;
    told = from;
  };
  PortProbe probe(options);
  while (port.came_from == 0) std::this_thread::sleep_for(milliseconds(1));
  probe.Stop();
  EXPECT_EQ(port.came_from, told);
  EXPECT_TRUE(probe.alive());  // its last word, also when it has stopped
}

TEST(PortProbe, ItEndsAtOnceWhenItIsNotNeeded) {
  const auto began = std::chrono::steady_clock::now();
  {
    Port port(false);
    PortProbeOptions options = Quick(port.number, false);
    options.every = std::chrono::hours(1);
    const PortProbe probe(options);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

}  // namespace
}  // namespace userintent::rpc
