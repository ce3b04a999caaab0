#include "server/astra/rest_client.h"

#include <string>
#include <utility>

#include "server/astra/classify.h"
#include "server/astra/json.h"
#include "server/base/text.h"

namespace userintent::astra {
namespace {

constexpr char kPath[] = "/v1/user_intent";

// Any id as one segment of a path. "." and ".." would be resolved on the way, so their dots are escaped too.
std::string PathSegment(std::string_view id) {
  if (id == ".") return "%2E";
  if (id == "..") return "%2E%2E";
  return PercentEncoded(id, "~");
}

class RestClient final : public Client {
 public:
  RestClient(http::Client& http, Credentials& credentials, std::optional<LimitRule> limit_rule, std::string user_agent,
             WallClock clock)
      : http_(http),
        credentials_(credentials),
        limit_rule_(std::move(limit_rule)),
        user_agent_(std::move(user_agent)),
        clock_(std::move(clock)) {}

  CallId Create(const v1::CreateUserIntentRequest& request, const Uuid& attempt_id, std::shared_ptr<const Lease> lease,
                Done done, Done late) override {
    std::shared_ptr<const BasicAuth> auth = credentials_.Snapshot();
    http::Request post = Start(*auth, "application/json");
    post.path = kPath;
    post.body = RequestBody(request, &attempt_id);
    post.lease = std::move(lease);
    if (late) {
      post.on_late = [this, late = std::move(late)](http::Outcome exchange) mutable {
        late(Classify(exchange, limit_rule_, clock_()));
      };
    }
    shown_ = auth;
    return http_.Start(std::move(post),
                       [this, auth = std::move(auth), done = std::move(done)](http::Outcome exchange) mutable {
                         Outcome outcome = Classify(exchange, limit_rule_, clock_());
                         outcome.credentials = auth->number;
                         if (outcome.verdict == Verdict::kCredentialsRejected) shown_ = std::move(auth);
                         done(std::move(outcome));
                       });
  }

  void Get(std::string user_intent_id, absl::AnyInvocable<void(ReadOutcome)> done) override {
    std::shared_ptr<const BasicAuth> auth = credentials_.Snapshot();
    http::Request get = Start(*auth, "");
    get.method = http::Method::kGet;
    get.path = kPath + ("/" + PathSegment(user_intent_id));
    shown_ = auth;
    http_.Start(std::move(get), [this, auth = std::move(auth), id = std::move(user_intent_id),
                                 done = std::move(done)](http::Outcome exchange) mutable {
      ReadOutcome outcome = ClassifyRead(exchange, id, clock_());
      outcome.credentials = auth->number;
      if (outcome.verdict == ReadVerdict::kCredentialsRejected) shown_ = std::move(auth);
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
  // What every request has. `content_type`: empty for one without a body.
  http::Request Start(const BasicAuth& auth, std::string_view content_type) const {
    http::Request request;
    request.headers.reserve(5);
    request.headers.emplace_back("Authorization", auth.header_value.Reveal());
    if (!content_type.empty()) request.headers.emplace_back("Content-Type", content_type);
    request.headers.emplace_back("Accept", "application/json");
    // Without it every coding is acceptable (RFC 9110 section 12.5.3), and an answer that was compressed on the way is
    // one that the gateway cannot read.
    request.headers.emplace_back("Accept-Encoding", "identity");
    // Some edges refuse a client that does not name itself, in a way that looks like wrong credentials.
    request.headers.emplace_back("User-Agent", user_agent_);
    return request;
  }

  http::Client& http_;
  Credentials& credentials_;
  const std::optional<LimitRule> limit_rule_;
  const std::string user_agent_;
  WallClock clock_;
  std::shared_ptr<const BasicAuth> shown_;  // by the last request, or by the last one that was answered with a 401
};

}  // namespace

std::unique_ptr<Client> NewRestClient(http::Client& http, Credentials& credentials, std::optional<LimitRule> limit_rule,
                                      std::string user_agent, WallClock clock) {
  return std::make_unique<RestClient>(http, credentials, std::move(limit_rule), std::move(user_agent),
                                      std::move(clock));
}

}  // namespace userintent::astra
