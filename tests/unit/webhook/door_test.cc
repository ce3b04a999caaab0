#include "server/webhook/door.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/webhook/support.h"

namespace userintent::webhook {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kKey = "a secret of tests";
constexpr auto kPatience = seconds(30);

// Answers at once, from a thread of its own, unless it is told to keep silent.
class FakeQueue final : public ledger::WebhookQueue {
 public:
  void Receive(ledger::Webhook webhook, Executor& executor, ReceiveDone done) override {
    const MutexLock lock(mutex_);
    received_.push_back(std::move(webhook));
    if (silent_) {
      kept_.emplace_back(&executor, std::move(done));
    } else {
      executor.Post([done = std::move(done), receipt = receipt_]() mutable { done(receipt); });
    }
  }
  void Next(absl::Time, size_t, Executor&, NextDone) override { ADD_FAILURE(); }
  void End(EndRequest, Executor&, EndDone) override { ADD_FAILURE(); }
  void ReceiverAlive(absl::Time) override { ADD_FAILURE(); }

  void Answer(ledger::Receipt receipt) {
    const MutexLock lock(mutex_);
    receipt_ = receipt;
  }
  void KeepSilent() {
    const MutexLock lock(mutex_);
    silent_ = true;
  }
  // Answers what was kept.
  void Speak(ledger::Receipt receipt) {
    const MutexLock lock(mutex_);
    silent_ = false;
    for (auto& [executor, done] : std::exchange(kept_, {})) {
      executor->Post([d = std::move(done), receipt]() mutable { d(receipt); });
    }
  }
  std::vector<ledger::Webhook> received() const {
    const MutexLock lock(mutex_);
    return received_;
  }
  bool AwaitReceived(size_t count) const {
    const SteadyTime end = SteadyClock::now() + kPatience;
    while (received().size() < count && SteadyClock::now() < end) std::this_thread::sleep_for(milliseconds(1));
    return received().size() >= count;
  }

 private:
  mutable Mutex mutex_;
  ledger::Receipt receipt_ ABSL_GUARDED_BY(mutex_) = ledger::Receipt::kStored;
  bool silent_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<ledger::Webhook> received_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<Executor*, ReceiveDone>> kept_ ABSL_GUARDED_BY(mutex_);
};

class CountingObserver final : public DoorObserver {
 public:
  void OnAnswer(Answer answer, SteadyClock::duration took) override {
    EXPECT_GE(took.count(), 0);
    const MutexLock lock(mutex_);
    ++answers_[answer];
  }
  void OnSignature(KeyKind key, Form form) override {
    const MutexLock lock(mutex_);
    signatures_.emplace_back(key, form);
  }
  void OnCut(Cut why) override {
    const MutexLock lock(mutex_);
    ++cuts_[why];
  }
  void OnConnections(size_t) override {}

  int answers(Answer answer) const {
    const MutexLock lock(mutex_);
    const auto found = answers_.find(answer);
    return found == answers_.end() ? 0 : found->second;
  }
  int cuts(Cut why) const {
    const MutexLock lock(mutex_);
    const auto found = cuts_.find(why);
    return found == cuts_.end() ? 0 : found->second;
  }
  std::vector<std::pair<KeyKind, Form>> signatures() const {
    const MutexLock lock(mutex_);
    return signatures_;
  }

 private:
  mutable Mutex mutex_;
  std::map<Answer, int> answers_ ABSL_GUARDED_BY(mutex_);
  std::map<Cut, int> cuts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<KeyKind, Form>> signatures_ ABSL_GUARDED_BY(mutex_);
};

// One connection of a client that writes what it likes.
class Client {
 public:
  explicit Client(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit{30, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }

  void Send(const std::string& bytes) const {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  // One answer, head and body; empty: the connection was closed first.
  std::string ReadAnswer() {
    for (;;) {
      const size_t head = read_.find("\r\n\r\n");
      if (head != std::string::npos) {
        const size_t field = read_.find("Content-Length: ");
        const size_t length = field < head ? std::stoul(read_.substr(field + 16)) : 0;
        if (read_.size() >= head + 4 + length) {
          const std::string answer = read_.substr(0, head + 4 + length);
          read_.erase(0, answer.size());
          return answer;
        }
      }
      char buffer[4096];
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return "";
      read_.append(buffer, static_cast<size_t>(n));
    }
  }

  // Whether the server closes the connection, with nothing more to say.
  bool AwaitEnd() {
    char buffer[4096];
    ssize_t n;
    while ((n = recv(fd_, buffer, sizeof buffer, 0)) > 0) read_.append(buffer, static_cast<size_t>(n));
    return read_.empty() && (n == 0 || errno == ECONNRESET);
  }

 private:
  const int fd_;
  bool connected_ = false;
  std::string read_;
};

std::string Body(const std::string& id) {
  return absl::StrCat(R"({"webhook_type":"user_intent_updated","webhook_id":")", id,
                      R"(","user_id":"i1","resource_id":"i1"})");
}

std::string PythonBody(const std::string& id) {
  return absl::StrCat(R"({"webhook_type": "user_intent_updated", "webhook_id": ")", id,
                      R"(", "user_id": "i1", "resource_id": "i1"})");
}

std::string Post(const std::string& body, const std::string& signature, const std::string& more = "") {
  return absl::StrCat("POST /astra/webhooks HTTP/1.1\r\nHost: door\r\nAstra-Verification: ", signature,
                      "\r\nContent-Length: ", body.size(), "\r\n", more, "\r\n", body);
}

std::string GoodPost(const std::string& id) { return Post(Body(id), Sign(Body(id), kKey)); }

class DoorTest : public testing::Test {
 protected:
  void Open(DoorOptions options = {}) {
    options.listen = {"127.0.0.1", 0};
    auto keys = Keys::Load({});
    ASSERT_TRUE(keys.ok());
    keys_ = *std::move(keys);
    keys_->SetClientSecret(Secret(kKey), SteadyClock::now());
    auto door = Door::Open(options, *keys_, nullptr, queue_, observer_);
    ASSERT_TRUE(door.ok()) << door.status();
    door_ = *std::move(door);
  }
  Client Connect() const { return Client(door_->port()); }

  std::string Ask(const std::string& request) const {
    Client client = Connect();
    client.Send(request);
    return client.ReadAnswer();
  }

  FakeQueue queue_;
  CountingObserver observer_;
  std::unique_ptr<Keys> keys_;
  std::unique_ptr<Door> door_;
};

TEST_F(DoorTest, StoresBeforeItAnswers) {
  Open();
  queue_.KeepSilent();
  Client client = Connect();
  client.Send(GoodPost("w1"));
  ASSERT_TRUE(queue_.AwaitReceived(1));
  EXPECT_EQ(queue_.received()[0].id, "w1");
  EXPECT_EQ(observer_.answers(Answer::kStored), 0);
  queue_.Speak(ledger::Receipt::kStored);
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(observer_.answers(Answer::kStored), 1);
}

TEST_F(DoorTest, BothFormsCount) {
  Open();
  EXPECT_THAT(Ask(GoodPost("w1")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(Post(Body("w2"), Sign(PythonBody("w2"), kKey))), StartsWith("HTTP/1.1 200 "));
  using Seen = std::pair<KeyKind, Form>;
  EXPECT_THAT(observer_.signatures(),
              testing::ElementsAre(Seen(KeyKind::kCurrent, Form::kRaw), Seen(KeyKind::kCurrent, Form::kPython)));
}

TEST_F(DoorTest, ThePreviousKeyCountsAfterARotation) {
  Open();
  keys_->SetClientSecret(Secret("the next one"), SteadyClock::now());
  EXPECT_THAT(Ask(GoodPost("w1")), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(observer_.signatures().at(0).first, KeyKind::kPrevious);
}

TEST_F(DoorTest, EveryReceiptHasItsAnswer) {
  Open();
  const std::pair<ledger::Receipt, const char*> table[] = {{ledger::Receipt::kStored, "200"},
                                                           {ledger::Receipt::kWaits, "200"},
                                                           {ledger::Receipt::kDone, "200"},
                                                           {ledger::Receipt::kFull, "503"},
                                                           {ledger::Receipt::kUnavailable, "503"}};
  for (const auto& [receipt, status] : table) {
    queue_.Answer(receipt);
    const std::string answer = Ask(GoodPost("w1"));
    EXPECT_THAT(answer, StartsWith(absl::StrCat("HTTP/1.1 ", status)));
    EXPECT_EQ(absl::StrContains(answer, "\r\nRetry-After: 10\r\n"), status == std::string("503"));
  }
}

TEST_F(DoorTest, OneTextForAllThatAreNotSigned) {
  Open();
  const std::string body = Body("w1");
  const std::string good = Sign(body, kKey);
  std::vector<std::string> texts;
  for (const std::string& request :
       {Post(body, Sign(body, "another key")), Post(body, ""), Post(body, "x"), Post(body + " ", good),
        Post(body, good, "Astra-Verification: " + good + "\r\n"), Post("[1]", good), Post("", good)}) {
    const std::string answer = Ask(request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 401 "));
    texts.push_back(answer.substr(answer.find("\r\n\r\n")));
  }
  EXPECT_THAT(texts, testing::Each(texts[0]));
  EXPECT_TRUE(queue_.received().empty());
  EXPECT_EQ(observer_.answers(Answer::kNoSignature), static_cast<int>(texts.size()));
}

TEST_F(DoorTest, SignedBodiesOfAnotherShapeAreBadRequests) {
  Open();
  for (const std::string& body : {std::string("[1]"), std::string("{}"), std::string("{"), std::string("\xff")}) {
    EXPECT_THAT(Ask(Post(body, Sign(body, kKey))), StartsWith("HTTP/1.1 400 ")) << body;
  }
  EXPECT_TRUE(queue_.received().empty());
}

TEST_F(DoorTest, KeepsConnectionsOpen) {
  Open();
  Client client = Connect();
  for (int i = 0; i < 3; ++i) {
    client.Send(GoodPost(absl::StrCat("w", i)));
    EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
    client.Send(Post(Body("w"), "forged"));
    EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 401 "));
  }
  client.Send(GoodPost("p1") + GoodPost("p2"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 ")) << "pipelined";
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(queue_.received().size(), 5U);
}

TEST_F(DoorTest, WhatHttpSays) {
  Open();
  const std::string body = Body("w1");
  const std::string field = absl::StrCat("Content-Length: ", body.size(), "\r\n");
  const auto request = [&](const std::string& line, const std::string& fields) {
    return absl::StrCat(line, "\r\nHost: door\r\n", fields, "\r\n", body);
  };
  const std::pair<std::string, const char*> table[] = {
      {request("POST /other HTTP/1.1", field), "404"},
      {request("POST /astra/webhooks/ HTTP/1.1", field), "404"},
      {request("POST /astra%2Fwebhooks HTTP/1.1", field), "404"},
      {request("PUT /astra/webhooks HTTP/1.1", field), "405"},
      {"GET /astra/webhooks HTTP/1.1\r\nHost: door\r\n\r\n", "405"},
      {request("POST /astra/webhooks HTTP/1.1", ""), "411"},
      {request("POST /astra/webhooks HTTP/1.1", "Transfer-Encoding: chunked\r\n"), "411"},
      {request("POST /astra/webhooks HTTP/1.1", "Transfer-Encoding: chunked\r\n" + field), "400"},
      {request("POST /astra/webhooks HTTP/1.1", field + field), "400"},
      {request("POST /astra/webhooks HTTP/1.1", "Content-Length: 65537\r\n"), "413"},
      {request("POST /astra/webhooks HTTP/1.1", "Content-Length: 99999999999999999999999\r\n"), "413"},
      {request("POST /astra/webhooks HTTP/1.1", field + "X: " + std::string(20'000, 'x') + "\r\n"), "431"},
      {request("POST /astra/webhooks HTTP/1.0", field), "505"},
  };
  for (const auto& [bytes, status] : table) {
    EXPECT_THAT(Ask(bytes), StartsWith(absl::StrCat("HTTP/1.1 ", status, " "))) << bytes.substr(0, 120);
  }
  EXPECT_TRUE(queue_.received().empty());
}

TEST_F(DoorTest, SlowRequestsHearSoAndAreClosed) {
  DoorOptions options;
  options.request_limit = milliseconds(200);
  Open(options);
  for (const std::string& part : {std::string(), std::string("POST /astra"), GoodPost("w1").substr(0, 60),
                                  GoodPost("w1").substr(0, GoodPost("w1").size() - 1)}) {
    Client client = Connect();
    client.Send(part);
    EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 408 ")) << part.size();
    EXPECT_TRUE(client.AwaitEnd());
  }
  EXPECT_EQ(observer_.answers(Answer::kTooSlow), 4);
  EXPECT_TRUE(queue_.received().empty());
}

TEST_F(DoorTest, ABodyThatDripsIsTooSlowAsWell) {
  DoorOptions options;
  options.request_limit = milliseconds(300);
  Open(options);
  Client client = Connect();
  const std::string request = GoodPost("w1");
  std::thread drip([&] {
    for (const char c : request) {
      client.Send(std::string(1, c));
      std::this_thread::sleep_for(milliseconds(20));
      if (observer_.answers(Answer::kTooSlow) > 0) return;
    }
  });
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 408 "));
  drip.join();
}

TEST_F(DoorTest, IdleConnectionsAreClosedWithoutAWord) {
  DoorOptions options;
  options.idle_limit = milliseconds(100);
  Open(options);
  Client client = Connect();
  client.Send(GoodPost("w1"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
  EXPECT_TRUE(client.AwaitEnd());
  EXPECT_EQ(observer_.cuts(Cut::kIdle), 1);
}

TEST_F(DoorTest, ASilentLedgerIsUnavailable) {
  DoorOptions options;
  options.ledger_limit = milliseconds(100);
  Open(options);
  queue_.KeepSilent();
  Client client = Connect();
  client.Send(GoodPost("w1"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 503 "));
  queue_.Speak(ledger::Receipt::kStored);  // too late, and no harm
  client.Send(GoodPost("w1"));
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(DoorTest, HalfOpenConnectionsKeepNobodyOut) {
  DoorOptions options;
  options.max_connections = options.max_per_address = 20;
  Open(options);
  std::vector<std::unique_ptr<Client>> half_open;
  for (int i = 0; i < 200; ++i) {
    half_open.push_back(std::make_unique<Client>(door_->port()));
    half_open.back()->Send("POST /astra/webhooks HTTP/1.1\r\n");
  }
  for (int i = 0; i < 5; ++i) EXPECT_THAT(Ask(GoodPost("w1")), StartsWith("HTTP/1.1 200 "));
  EXPECT_GE(observer_.cuts(Cut::kAddressFull), 180);
}

TEST_F(DoorTest, ASenderThatIsKnownOutlastsStrangers) {
  DoorOptions options;
  options.max_connections = options.max_per_address = 20;
  Open(options);
  Client sender = Connect();
  sender.Send(GoodPost("w1"));
  EXPECT_THAT(sender.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
  std::vector<std::unique_ptr<Client>> half_open;
  for (int i = 0; i < 100; ++i) half_open.push_back(std::make_unique<Client>(door_->port()));
  const SteadyTime end = SteadyClock::now() + kPatience;
  while (observer_.cuts(Cut::kAddressFull) < 80 && SteadyClock::now() < end) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  sender.Send(GoodPost("w2"));
  EXPECT_THAT(sender.ReadAnswer(), StartsWith("HTTP/1.1 200 "));
}

TEST_F(DoorTest, GarbageIsSurvived) {
  DoorOptions options;
  options.request_limit = milliseconds(500);
  Open(options);
  for (const std::string& bytes :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11), std::string(1000, '\0'),
        std::string("\r\n\r\n"), std::string("POST\r\n\r\n"), std::string(100'000, 'A'),
        std::string("POST /astra/webhooks\r\n\r\n"), std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        std::string("POST /astra/webhooks HTTP/1.1\r\nContent-Length: -5\r\n\r\n")}) {
    Client client = Connect();
    client.Send(bytes);
    const std::string answer = client.ReadAnswer();
    EXPECT_TRUE(answer.empty() || answer.substr(9, 1) == "4" || answer.substr(9, 1) == "5") << answer;
  }
  EXPECT_THAT(Ask(GoodPost("w1")), StartsWith("HTTP/1.1 200 "));
}

TEST_F(DoorTest, ClosingAnswersWhatHasBegun) {
  Open();
  queue_.KeepSilent();
  Client asked = Connect();
  asked.Send(GoodPost("w1"));
  ASSERT_TRUE(queue_.AwaitReceived(1));
  Client idle = Connect();
  const uint16_t port = door_->port();
  std::thread stop([&] { door_->Stop(); });
  const SteadyTime end = SteadyClock::now() + kPatience;
  while (Client(port).connected() && SteadyClock::now() < end) std::this_thread::sleep_for(milliseconds(1));
  queue_.Speak(ledger::Receipt::kStored);
  const std::string answer = asked.ReadAnswer();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close"));
  stop.join();
  EXPECT_FALSE(Client(port).connected());
  door_->Stop();
}

TEST_F(DoorTest, ClosingDoesNotWaitForASilentLedger) {
  DoorOptions options;
  options.stop_limit = milliseconds(100);
  Open(options);
  queue_.KeepSilent();
  Client client = Connect();
  client.Send(GoodPost("w1"));
  ASSERT_TRUE(queue_.AwaitReceived(1));
  door_->Stop();
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 503 "));
  queue_.Speak(ledger::Receipt::kStored);
}

TEST_F(DoorTest, APortInUseIsRefused) {
  Open();
  DoorOptions options;
  options.listen = {"127.0.0.1", door_->port()};
  EXPECT_FALSE(Door::Open(options, *keys_, nullptr, queue_, observer_).ok());
}

}  // namespace
}  // namespace userintent::webhook
