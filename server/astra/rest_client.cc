#include "server/astra/rest_client.h"

#include <string>
#include <utility>

#include "server/astra/classify.h"
#include "server/astra/json.h"

namespace userintent::astra {
namespace {

class RestClient final : public Client {
 public:
  RestClient(http::Client& http, Credentials& credentials, std::optional<LimitRule> limit_rule, std::string user_agent,
             WallClock clock)
      : http_(http),
        credentials_(credentials),
        limit_rule_(std::move(limit_rule)),
        user_agent_(std::move(user_agent)),
        clock_(std::move(clock)) {}

  CallId Create(const v1::CreateUserIntentRequest& request, const Uuid& attempt_id, Done done) override {
    std::shared_ptr<const BasicAuth> auth = credentials_.Snapshot();
    shown_ = auth;

    http::Request post;
    post.path = "/v1/user_intent";
    post.headers.reserve(5);
    post.headers.emplace_back("Authorization", auth->header_value.Reveal());
    post.headers.emplace_back("Content-Type", "application/json");
    post.headers.emplace_back("Accept", "application/json");
    // Without it every coding is acceptable (RFC 9110 section 12.5.3), and an answer that was compressed on the way is
    // one that nobody here can read.
    post.headers.emplace_back("Accept-Encoding", "identity");
    // Some edges refuse whoever does not name himself, in a way that looks like wrong credentials.
    post.headers.emplace_back("User-Agent", user_agent_);
    post.body = RequestBody(request, &attempt_id);
    return http_.Start(std::move(post),
                       [this, auth = std::move(auth), done = std::move(done)](http::Outcome exchange) mutable {
                         Outcome outcome = Classify(exchange, limit_rule_, clock_());
                         if (outcome.verdict == Verdict::kCredentialsRejected) shown_ = std::move(auth);
                         done(std::move(outcome));
                       });
  }

  bool CancelUnsent(CallId id) override { return http_.CancelUnsent(id); }

  bool RefreshCredentials() override {
    // Files that cannot be read leave the last good credentials, which may still be newer than those shown.
    credentials_.Refresh().IgnoreError();
    return shown_ != nullptr && !(credentials_.Snapshot()->header_value == shown_->header_value);
  }

 private:
  http::Client& http_;
  Credentials& credentials_;
  const std::optional<LimitRule> limit_rule_;
  const std::string user_agent_;
  WallClock clock_;
  std::shared_ptr<const BasicAuth> shown_;  // by the last POST, or by the last one that was answered with a 401
};

}  // namespace

std::unique_ptr<Client> NewRestClient(http::Client& http, Credentials& credentials, std::optional<LimitRule> limit_rule,
                                      std::string user_agent, WallClock clock) {
  return std::make_unique<RestClient>(http, credentials, std::move(limit_rule), std::move(user_agent),
                                      std::move(clock));
}

}  // namespace userintent::astra
