#include "server/astra/rest_client.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/base/temporary_directory.h"

namespace userintent::astra {
namespace {

// Keeps what it is asked to send until the test answers.
class FakeHttp final : public http::Client {
 public:
  ExchangeId Start(http::Request request, Done done) override {
    requests.push_back(std::move(request));
    waiting_.emplace(++last_, std::move(done));
    return last_;
  }
  bool CancelUnsent(ExchangeId id) override {
    asked_to_cancel.push_back(id);
    return cancellable;
  }
  int PollFd() const override { return -1; }
  std::optional<SteadyTime> NextTimer() const override { return std::nullopt; }
  void Turn() override {}
  const http::Stats& stats() const override { return stats_; }

  void Answer(ExchangeId id, http::Outcome outcome) {
    auto node = waiting_.extract(id);
    ASSERT_FALSE(node.empty());
    node.mapped()(std::move(outcome));
  }
  void Answer(ExchangeId id, int status, std::string body = "") {
    http::Outcome outcome;
    outcome.fate = http::Fate::kAnswered;
    outcome.status = status;
    outcome.body_complete = true;
    outcome.body = std::move(body);
    outcome.retry_after = "Sun, 06 Nov 1994 08:49:37 GMT";
    Answer(id, std::move(outcome));
  }

  std::vector<http::Request> requests;
  std::vector<ExchangeId> asked_to_cancel;
  bool cancellable = false;

 private:
  std::map<ExchangeId, Done> waiting_;
  ExchangeId last_ = 40;
  http::Stats stats_;
};

class RestClientTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_.Write("id", "Aladdin");
    dir_.Write("secret", "open sesame");
    auto credentials = Credentials::Load(dir_.Path("id"), dir_.Path("secret"));
    ASSERT_TRUE(credentials.ok()) << credentials.status();
    credentials_ = *std::move(credentials);
    client_ = NewRestClient(http_, *credentials_, LimitRule{422, "attempts"}, "userintent-server/1.2.3", [] {
      return absl::FromCivil(absl::CivilSecond(1994, 11, 6, 8, 49, 0), absl::UTCTimeZone());
    });
    request_.set_email("ada@example.com");
  }

  Client::CallId Create() {
    return client_->Create(
        request_, attempt_, nullptr, [this](Outcome outcome) { outcomes_.push_back(std::move(outcome)); }, nullptr);
  }

  const TemporaryDirectory dir_;
  FakeHttp http_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Client> client_;
  v1::CreateUserIntentRequest request_;
  const Uuid attempt_ = *ParseUuid("0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff");
  std::vector<Outcome> outcomes_;
};

TEST_F(RestClientTest, WhatIsSent) {
  Create();
  ASSERT_EQ(http_.requests.size(), 1u);
  const http::Request& sent = http_.requests[0];
  EXPECT_EQ(sent.path, "/v1/user_intent");
  EXPECT_EQ(sent.headers,
            (std::vector<std::pair<std::string, std::string>>{{"Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
                                                              {"Content-Type", "application/json"},
                                                              {"Accept", "application/json"},
                                                              {"Accept-Encoding", "identity"},
                                                              {"User-Agent", "userintent-server/1.2.3"}}));
  const auto body = nlohmann::json::parse(sent.body);
  EXPECT_EQ(body["email"], "ada@example.com");
  EXPECT_EQ(body["metadata"]["gateway_attempt_id"], "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0ff");
  EXPECT_TRUE(outcomes_.empty());
}

TEST_F(RestClientTest, WhatAReadSends) {
  const std::pair<std::string, std::string> paths[] = {
      {"1a90-x_Y.z~", "/v1/user_intent/1a90-x_Y.z~"},
      {"..", "/v1/user_intent/%2E%2E"},
      {".", "/v1/user_intent/%2E"},
      {"../a?b#c%", "/v1/user_intent/..%2Fa%3Fb%23c%25"},
      {"\u00e9 +", "/v1/user_intent/%C3%A9%20%2B"},
  };
  for (const auto& [id, path] : paths) {
    client_->Get(id, [](ReadOutcome) {});
    const http::Request& sent = http_.requests.back();
    EXPECT_EQ(sent.method, http::Method::kGet);
    EXPECT_EQ(sent.path, path);
    EXPECT_EQ(sent.body, "");
    EXPECT_EQ(sent.headers,
              (std::vector<std::pair<std::string, std::string>>{{"Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
                                                                {"Accept", "application/json"},
                                                                {"Accept-Encoding", "identity"},
                                                                {"User-Agent", "userintent-server/1.2.3"}}));
  }
}

TEST_F(RestClientTest, ARefusedReadComparesTheCredentialsThatItShowed) {
  std::optional<ReadOutcome> outcome;
  client_->Get("intent-1", [&](ReadOutcome read) { outcome = std::move(read); });
  dir_.Write("secret", "another one");
  ASSERT_TRUE(client_->RefreshCredentials());
  Create();  // shows the new ones
  http_.Answer(41, 401);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->verdict, ReadVerdict::kCredentialsRejected);
  EXPECT_EQ(outcome->credentials, 1u);
  EXPECT_TRUE(client_->RefreshCredentials());
}

TEST_F(RestClientTest, AnswersReachTheirOwnCalls) {
  std::vector<std::pair<int, std::string>> got;
  std::vector<Client::CallId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(client_->Create(
        request_, attempt_, nullptr, [&got, i](Outcome outcome) { got.emplace_back(i, outcome.user_intent_id); },
        nullptr));
  }
  http_.Answer(ids[1], 201, R"({"id":"b"})");
  http_.Answer(ids[2], 200, R"({"id":"c"})");
  http_.Answer(ids[0], 201, R"({"id":"a"})");
  EXPECT_EQ(got, (std::vector<std::pair<int, std::string>>{{1, "b"}, {2, "c"}, {0, "a"}}));
}

TEST_F(RestClientTest, UsesItsRuleAndItsClock) {
  http_.Answer(Create(), 422, R"({"description":"no attempts left"})");
  http_.Answer(Create(), 422, "{}");
  http_.Answer(Create(), 503);
  ASSERT_EQ(outcomes_.size(), 3u);
  EXPECT_EQ(outcomes_[0].verdict, Verdict::kLimitReached);
  EXPECT_EQ(outcomes_[1].verdict, Verdict::kRejected);
  EXPECT_EQ(outcomes_[2].verdict, Verdict::kUnavailable);
  EXPECT_EQ(outcomes_[2].retry_after, absl::Seconds(37));
}

TEST_F(RestClientTest, TheLeaseGoesWithThePostAlone) {
  const auto lease = std::make_shared<const Lease>();
  std::vector<Outcome> over;
  const Client::CallId id = client_->Create(
      request_, attempt_, lease, [&over](Outcome outcome) { over.push_back(std::move(outcome)); }, nullptr);
  EXPECT_EQ(http_.requests.back().lease, lease);
  client_->Get("1", [](ReadOutcome) {});
  EXPECT_EQ(http_.requests.back().lease, nullptr);
  http::Outcome exchange;
  exchange.fate = http::Fate::kNotSent;
  exchange.cause = http::NotSentCause::kLeaseOver;
  http_.Answer(id, std::move(exchange));
  ASSERT_EQ(over.size(), 1u);
  EXPECT_EQ(over[0].verdict, Verdict::kNotSent);
  EXPECT_TRUE(over[0].lease_over);
}

TEST_F(RestClientTest, CancelUnsent) {
  const Client::CallId first = Create(), second = Create();
  EXPECT_FALSE(client_->CancelUnsent(second));
  http_.cancellable = true;
  EXPECT_TRUE(client_->CancelUnsent(first));
  EXPECT_EQ(http_.asked_to_cancel, (std::vector<http::Client::ExchangeId>{second, first}));
  http::Outcome cancelled;
  cancelled.fate = http::Fate::kNotSent;
  cancelled.cause = http::NotSentCause::kCancelled;
  http_.Answer(first, std::move(cancelled));
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_EQ(outcomes_[0].verdict, Verdict::kNotSent);
  EXPECT_TRUE(outcomes_[0].cancelled);
}

TEST_F(RestClientTest, RefreshBeforeAnyPost) {
  dir_.Write("secret", "another");
  EXPECT_FALSE(client_->RefreshCredentials());
}

TEST_F(RestClientTest, RefreshComparesWithWhatWasShown) {
  Create();
  EXPECT_FALSE(client_->RefreshCredentials());
  dir_.Write("secret", "another");
  EXPECT_TRUE(client_->RefreshCredentials());
  EXPECT_TRUE(client_->RefreshCredentials());  // still not shown to anybody
  Create();
  EXPECT_EQ(http_.requests[1].headers[0].second, "Basic QWxhZGRpbjphbm90aGVy");
  EXPECT_FALSE(client_->RefreshCredentials());
}

// The process-wide poller may have read the new files first.
TEST_F(RestClientTest, RefreshCountsWhatThePollerFound) {
  Create();
  dir_.Write("secret", "another");
  ASSERT_TRUE(credentials_->Refresh().value());
  EXPECT_TRUE(client_->RefreshCredentials());
}

TEST_F(RestClientTest, RefreshWithBrokenFilesKeepsTheOld) {
  Create();
  dir_.Write("secret", "");
  EXPECT_FALSE(client_->RefreshCredentials());
  dir_.Write("secret", "another", 0644);
  EXPECT_FALSE(client_->RefreshCredentials());
}

TEST_F(RestClientTest, ThereAndBackAgainIsNoChange) {
  Create();
  dir_.Write("secret", "another");
  ASSERT_TRUE(credentials_->Refresh().value());
  dir_.Write("secret", "open sesame");
  EXPECT_FALSE(client_->RefreshCredentials());
}

// A 401 that comes after a later POST has already shown the new credentials must still find that they are new to it.
TEST_F(RestClientTest, RefreshInDoneIsAboutThatVeryPost) {
  std::vector<bool> other;
  std::vector<uint64_t> shown;
  const auto note = [this, &other, &shown](Outcome outcome) {
    shown.push_back(outcome.credentials);
    if (outcome.verdict == Verdict::kCredentialsRejected) other.push_back(client_->RefreshCredentials());
  };
  const Client::CallId first = client_->Create(request_, attempt_, nullptr, note, nullptr);
  dir_.Write("secret", "another");
  ASSERT_TRUE(credentials_->Refresh().value());
  const Client::CallId second = client_->Create(request_, attempt_, nullptr, note, nullptr);
  http_.Answer(first, 401);
  http_.Answer(second, 401);
  EXPECT_EQ(other, (std::vector<bool>{true, false}));
  EXPECT_EQ(shown, (std::vector<uint64_t>{1, 2}));
}

// `done` may start the next try.
TEST_F(RestClientTest, CreateFromWithinDone) {
  Client::CallId next = 0;
  const Client::CallId first = client_->Create(
      request_, attempt_, nullptr, [&](Outcome) { next = Create(); }, nullptr);
  http_.Answer(first, 429);
  ASSERT_NE(next, 0u);
  http_.Answer(next, 201, R"({"id":"a"})");
  ASSERT_EQ(outcomes_.size(), 1u);
  EXPECT_EQ(outcomes_[0].verdict, Verdict::kCreated);
}

// A late answer means what it would have meant in time.
TEST_F(RestClientTest, LateAnswersAreClassifiedAlike) {
  Create();
  EXPECT_EQ(http_.requests[0].on_late, nullptr);
  std::vector<Outcome> late;
  const auto create = [&] {
    return client_->Create(
        request_, attempt_, nullptr, [this](Outcome outcome) { outcomes_.push_back(std::move(outcome)); },
        [&late](Outcome outcome) { late.push_back(std::move(outcome)); });
  };
  const auto answer = [](int status, std::string body) {
    http::Outcome outcome;
    outcome.fate = http::Fate::kAnswered;
    outcome.status = status;
    outcome.body_complete = true;
    outcome.body = std::move(body);
    return outcome;
  };
  const std::pair<http::Outcome, Verdict> cases[] = {
      {answer(201, R"({"id":"a"})"), Verdict::kCreated},
      {answer(422, R"({"description":"no attempts left"})"), Verdict::kLimitReached},
      {answer(400, "{}"), Verdict::kRejected},
      {answer(429, "{}"), Verdict::kRateLimited},
      {answer(500, "{}"), Verdict::kUnknown},
  };
  for (const auto& [exchange, verdict] : cases) {
    http_.Answer(create(), http::Outcome{});
    EXPECT_EQ(outcomes_.back().verdict, Verdict::kUnknown);
    http_.requests.back().on_late(exchange);
    EXPECT_EQ(late.back().verdict, verdict);
  }
  EXPECT_EQ(late.front().user_intent_id, "a");
  EXPECT_EQ(late.size(), std::size(cases));
  EXPECT_EQ(outcomes_.size(), late.size());
  client_->Get("intent-1", [](ReadOutcome) {});
  EXPECT_EQ(http_.requests.back().on_late, nullptr);
}

}  // namespace
}  // namespace userintent::astra
