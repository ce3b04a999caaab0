// The conformance runner of the C++ library: performs a plan as ../README.md says.
//
// Steps run on the main thread; a storm's calls, watches and background waits run on threads of their own. Background
// creations use the library's callback API, everything else its blocking calls.
#include <curl/curl.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "http.h"
#include "outcome.h"
#include "userintent/client.h"
#include "watching.h"

namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using userintent::CallOptions;
using userintent::Client;
using userintent::CreateResult;
using userintent::WatchOptions;
using userintent::v1::CreateUserIntentRequest;
using Created = absl::StatusOr<CreateResult>;

constexpr auto kPatience = std::chrono::seconds(20);
constexpr int kStormRepeats = 400;

// A creation in the background.
struct Background {
  Client* client = nullptr;
  CreateUserIntentRequest request;
  steady_clock::time_point started;
  userintent::PendingCreate pending;
  std::future<std::pair<Created, steady_clock::time_point>> ended;
};

std::vector<std::string> Forms(const CreateUserIntentRequest& request) {
  return {Text(request), userintent::Redacted(request)};
}

CreateUserIntentRequest Parse(const json& step) {
  CreateUserIntentRequest request;
  const auto status = google::protobuf::util::JsonStringToMessage(step.at("request").dump(), &request);
  if (!status.ok()) throw Failure("the request cannot be read");
  if (step.value("unknown_field", false)) {
    request.GetReflection()->MutableUnknownFields(&request)->AddVarint(22, 1);
  }
  return request;
}

CallOptions Options(const json& step) {
  CallOptions options;
  if (step.contains("deadline_ms")) options.timeout = absl::Milliseconds(step["deadline_ms"].get<int64_t>());
  if (step.contains("max_tries")) options.max_tries = step["max_tries"].get<int>();
  return options;
}

userintent::ReadOptions ReadOptionsOf(const json& step) {
  const CallOptions call = Options(step);
  userintent::ReadOptions options;
  options.timeout = call.timeout;
  options.max_tries = call.max_tries;
  options.max_age = absl::Milliseconds(step.value("max_age_ms", int64_t{0}));
  options.allow_stale = step.value("allow_stale", false);
  return options;
}

// A wait in the background. Of a watch, so that it can be cancelled.
struct BackgroundWait {
  Client* client = nullptr;
  userintent::Watch watch;
  steady_clock::time_point started;
  std::future<std::pair<Outcome, steady_clock::time_point>> ended;
};

class Run {
 public:
  Run(const json& plan, const json& scenario) : plan_(plan), scenario_(scenario) {}

  ~Run() {
    for (auto& [name, background] : running_) background.pending.Cancel();
    for (auto& [name, wait] : waits_) wait.watch.Cancel();
    waits_.clear();
    watches_.clear();
    clients_.clear();  // waits for what runs
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Throws.
  void Perform() {
    size_t number = 0;
    for (const json& step : scenario_.at("steps")) {
      try {
        Step(step, number);
      } catch (const std::exception& error) {
        throw Failure(absl::StrCat("step ", number, ": ", step.at("do").get<std::string>(), ": ", error.what()));
      }
      ++number;
    }
    try {
      CheckAccounts();
    } catch (const std::exception& error) {
      throw Failure(absl::StrCat("end: ", error.what()));
    }
  }

 private:
  void Step(const json& step, size_t number) {
    const std::string what = step.at("do");
    const std::string name = step.value("name", "");
    const auto started = steady_clock::now();
    if (what == "create") {
      Client* client = ClientOf(step);
      const CreateUserIntentRequest request = Request(step);
      const Created created = client->CreateUserIntent(request, Options(step));
      Ended(step, number, started, steady_clock::now(), client, request, Of(created));
    } else if (what == "begin") {
      Begin(step, name);
    } else if (what == "cancel") {
      running_.at(name).pending.Cancel();
    } else if (what == "end" && waits_.count(name) == 1) {
      BackgroundWait wait = std::move(waits_.at(name));
      waits_.erase(name);
      if (wait.ended.wait_for(std::chrono::seconds(60)) != std::future_status::ready) throw Failure("it still waits");
      auto [out, ended] = wait.ended.get();
      Ended(step, number, wait.started, ended, wait.client, {}, std::move(out));
    } else if (what == "end") {
      Background background = std::move(running_.at(name));
      running_.erase(name);
      if (background.ended.wait_for(std::chrono::seconds(60)) != std::future_status::ready)
        throw Failure("it still runs");
      auto [created, ended] = background.ended.get();
      if (background.pending.request_id() !=
          (created.ok() ? created->request_id : userintent::ErrorOf(created.status())->request_id)) {
        throw Failure("the pending call has another request_id");
      }
      Ended(step, number, background.started, ended, background.client, background.request, Of(created));
    } else if (what == "repeat") {
      const Outcome& of = outcomes_.at(step.at("of"));
      if (of.status.ok()) throw Failure("that call did not end with an error");
      const Created created = of.client->Repeat(of.status, of.request, Options(step));
      Ended(step, number, started, steady_clock::now(), of.client, of.request, Of(created));
    } else if (what == "get") {
      Client* client = ClientOf(step);
      const auto creation = client->GetCreation(Named(step.at("request_id"), "request_id"), Options(step));
      Ended(step, number, started, steady_clock::now(), client, {}, Of(creation));
    } else if (what == "read") {
      Client* client = ClientOf(step);
      const auto [key, request_id] = KeyOf(step);
      const auto read = client->GetUserIntent(key, ReadOptionsOf(step));
      Ended(step, number, started, steady_clock::now(), client, {}, Of(read, request_id));
    } else if (what == "watch") {
      WatchOptions options;
      for (const json& id : step.at("request_ids")) options.request_ids.push_back(Named(id, "request_id"));
      if (step.contains("resume_of")) options.resume_token = watches_.at(step["resume_of"])->resume_token();
      if (step.contains("resume_token") &&
          !absl::Base64Unescape(step["resume_token"].get<std::string>(), &options.resume_token)) {
        throw Failure("the token is not in base64");
      }
      watches_[name] = std::make_unique<Watching>(ClientOf(step)->WatchUserIntents(options));
    } else if (what == "events") {
      Events(step, name);
    } else if (what == "stop") {
      watches_.at(name)->Stop();
    } else if (what == "watch_ended") {
      Ended(step, number, started, steady_clock::now(), nullptr, {}, Failed(watches_.at(name)->Ended()));
    } else if (what == "wait_for_outcome" || what == "wait_for_status") {
      Client* client = ClientOf(step);
      const std::string id = Named(step.at("request_id"), "request_id");
      Outcome out = what == "wait_for_outcome" ? Of(client->WaitForOutcome(id, Options(step)))
                                               : Of(client->WaitForStatus(id, Statuses(step), Options(step)), id);
      Ended(step, number, started, steady_clock::now(), client, {}, std::move(out));
    } else if (what == "begin_wait") {
      BeginWait(step, name);
    } else if (what == "get_authorization_url") {
      Client* client = ClientOf(step);
      const auto [key, request_id] = KeyOf(step);
      const CallOptions call = Options(step);
      const auto answer =
          client->GetAuthorizationUrl(key, {step.at("redirect_uri"), step.at("state"), call.timeout, call.max_tries});
      Ended(step, number, started, steady_clock::now(), client, {}, Of(answer, request_id));
    } else if (what == "authorization_url") {
      const json& fields = outcomes_.at(step.at("of")).fields;
      userintent::v1::UserIntent intent;
      intent.set_id(fields.at("user_intent_id").get<std::string>());
      intent.set_user_id(fields.at("user_id").get<std::string>());
      intent.set_status(StatusNamed(fields.at("status")));
      const auto made = userintent::AuthorizationUrlOf(
          intent, {step.at("app_url"), step.at("client_id"), step.at("redirect_uri"), step.at("state")});
      Ended(step, number, started, steady_clock::now(), nullptr, {}, Of(made, intent));
    } else if (what == "text") {
      ShowsAndHides(step);
    } else if (what == "http") {
      Http(step.value("method", "POST"),
           plan_.at(step.at("to")).get<std::string>() + step.at("path").get<std::string>(),
           step.value("body", json::object()));
    } else if (what == "wait_posts") {
      while (Posts(step.at("email")).size() < step.at("count").get<size_t>()) {
        if (steady_clock::now() - started > kPatience) throw Failure("the posts did not arrive");
        std::this_thread::sleep_for(milliseconds(10));
      }
    } else if (what == "storm") {
      Storm(step);
    } else {
      throw Failure("this runner does not know it");
    }
  }

  // The id itself, or for @name that field of the call named so.
  std::string Named(const std::string& id, const char* field) const {
    return absl::StartsWith(id, "@") ? outcomes_.at(id.substr(1)).fields.at(field).get<std::string>() : id;
  }

  // The key of a read, and its request_id if it is that.
  std::pair<userintent::IntentKey, std::string> KeyOf(const json& step) const {
    if (step.contains("user_intent_id"))
      return {userintent::UserIntentId{Named(step.at("user_intent_id"), "user_intent_id")}, ""};
    const std::string request_id = Named(step.at("request_id"), "request_id");
    return {userintent::RequestId{request_id}, request_id};
  }

  static std::vector<userintent::v1::UserIntentStatus> Statuses(const json& step) {
    std::vector<userintent::v1::UserIntentStatus> statuses;
    for (const json& name : step.at("statuses")) statuses.push_back(StatusNamed(name));
    return statuses;
  }

  // Holds what the watch gives to the list of the step.
  void Events(const json& step, const std::string& name) {
    size_t number = 0;
    for (const json& entry : step.at("expect")) {
      std::string passed;
      for (bool met = false; !met;) {
        std::string unmet;
        try {
          Outcome event = watches_.at(name)->Next();
          CheckTexts(event.texts);
          unmet = Differs(event.fields, entry);
          met = unmet.empty();
          const bool may_pass = event.fields["event"] == "changed" && !step.value("exact", false);
          if (!met && !may_pass) throw Failure(unmet);
          outcomes_.insert_or_assign(name, std::move(event));
        } catch (const Failure& failure) {
          throw Failure(
              absl::StrCat("entry ", number, ": ", failure.what(), passed.empty() ? "" : "; passed over", passed));
        }
        if (!met) absl::StrAppend(&passed, " (", unmet, ")");
      }
      ++number;
    }
  }

  void BeginWait(const json& step, const std::string& name) {
    Client* client = ClientOf(step);
    const std::string id = Named(step.at("request_id"), "request_id");
    WatchOptions options;
    options.request_ids = {id};
    options.timeout = Options(step).timeout.value_or(userintent::kDefaultTimeout);
    BackgroundWait wait{client, client->WatchUserIntents(options), steady_clock::now(), {}};
    wait.ended = std::async(std::launch::async, [watch = wait.watch, step, id] {
      Outcome out =
          step.at("wait") == "outcome" ? Of(watch.WaitForOutcome()) : Of(watch.WaitForStatus(Statuses(step)), id);
      return std::pair(std::move(out), steady_clock::now());
    });
    waits_.insert_or_assign(name, std::move(wait));
  }

  void Begin(const json& step, const std::string& name) {
    Background background;
    background.client = ClientOf(step);
    background.request = Request(step);
    background.started = steady_clock::now();
    std::promise<std::pair<Created, steady_clock::time_point>> promise;
    background.ended = promise.get_future();
    background.pending = background.client->CreateUserIntentAsync(
        background.request, Options(step), [promise = std::move(promise)](Created created) mutable {
          promise.set_value({std::move(created), steady_clock::now()});
        });
    running_.insert_or_assign(name, std::move(background));
  }

  Client* ClientOf(const json& step) {
    const std::string name = step.at("client");
    std::unique_ptr<Client>& client = clients_[name];
    if (client == nullptr) {
      const json& settings = plan_.at("clients").at(name);
      userintent::ClientOptions options;
      options.target = settings.at("address");
      options.plaintext = !settings.contains("ca_file");
      if (!options.plaintext) {
        options.tls = userintent::TlsFiles{settings.at("ca_file"), settings.value("cert_file", ""),
                                           settings.value("key_file", ""), settings.value("server_name", "")};
      }
      if (settings.contains("max_tries")) options.max_tries = settings["max_tries"];
      auto made = Client::Create(options);
      if (!made.ok()) throw Failure(made.status().ToString());
      client = *std::move(made);
    }
    return client.get();
  }

  // The request of a step; its string forms hold no personal data.
  CreateUserIntentRequest Request(const json& step) const {
    CreateUserIntentRequest request = Parse(step);
    CheckTexts(Forms(request));
    return request;
  }

  // Compares a call's result with what the step expects, and keeps it under the step's name.
  void Ended(const json& step, size_t number, steady_clock::time_point started, steady_clock::time_point ended,
             Client* client, const CreateUserIntentRequest& request, Outcome out) {
    out.client = client;
    out.request = request;
    out.fields["elapsed_ms"] = std::chrono::duration_cast<milliseconds>(ended - started).count();
    if (step.contains("name")) outcomes_.insert_or_assign(step["name"], out);
    CheckTexts(out.texts);
    const std::string what = step.at("do");
    if ((what == "create" || what == "end" || what == "repeat") &&
        out.fields["request_id"].get_ref<const std::string&>().empty())
      throw Failure("request_id is empty");
    if (const std::string differs = Differs(out.fields, step.at("expect")); !differs.empty()) throw Failure(differs);
    if (scenario_.value("report", false) && (what == "create" || what == "get")) {
      std::string value = out.fields["user_intent_id"];
      if (!out.fields["ok"]) {
        value = absl::StrCat(out.fields["code"].get<std::string>(), "/", out.fields["reason"].get<std::string>(), "/",
                             out.fields["sent"].get<std::string>(), "/", out.fields["recovery"].get<std::string>());
      }
      std::cout << "answer " << scenario_["name"].get<std::string>() << ' ' << number << ' ' << value << '\n';
    }
  }

  // The first field that is not as expected; empty: all are.
  std::string Differs(const json& fields, const json& expect) const {
    for (const auto& [name, want] : expect.items()) {
      const json& got = fields.at(name);
      const std::string of = want.is_string() ? want.get<std::string>() : "";
      const bool holds =
          absl::StartsWith(of, "@") ? got == outcomes_.at(of.substr(1)).fields.at(name) : Holds(name, got, want);
      if (!holds) return absl::StrCat(name, ": expected ", want.dump(), ", got ", got.dump(), " of ", fields.dump());
    }
    return "";
  }

  void CheckTexts(const std::vector<std::string>& texts) const {
    for (const std::string& text : texts) {
      size_t number = 0;
      for (const std::string word : plan_.at("never_in_text")) {
        if (text.find(word) != std::string::npos) {
          throw Failure(absl::StrCat("a string form holds number ", number, " of never_in_text"));
        }
        ++number;
      }
    }
  }

  void ShowsAndHides(const json& step) const {
    for (const std::string& text : Forms(Request(step))) {
      for (const std::string word : step.at("shows")) {
        if (text.find(word) == std::string::npos) throw Failure("the string form does not show " + word);
      }
      size_t number = 0;
      for (const std::string word : step.at("hides")) {
        if (text.find(word) != std::string::npos) {
          throw Failure(absl::StrCat("the string form holds number ", number, " of hides"));
        }
        ++number;
      }
    }
  }

  json Posts(const std::string& email) const { return Account(email, "posts"); }

  json Account(const std::string& email, const char* what) const {
    const json account = Http("GET", plan_.at("sandbox").get<std::string>() + "/accounting?email=" + Escaped(email));
    const auto found = account.find(what);
    return found == account.end() || found->is_null() ? json::array() : *found;
  }

  void CheckAccounts() const {
    const json wanted_posts = scenario_.value("posts", json::object());
    const json wanted_gets = scenario_.value("gets", json::object());
    const json wanted_bodies = scenario_.value("bodies", json::object());
    const json wanted_calls = scenario_.value("calls", json::object());
    for (const auto& [email, count] : wanted_posts.items()) {
      const size_t counted = Posts(email).size();
      if (counted != count.get<size_t>())
        throw Failure(absl::StrCat("expected ", count.dump(), " posts, got ", counted));
    }
    for (const auto& [email, count] : wanted_gets.items()) {
      const size_t counted = Account(email, "gets").size();
      if (counted != count.get<size_t>())
        throw Failure(absl::StrCat("expected ", count.dump(), " GETs, got ", counted));
    }
    for (const auto& [email, members] : wanted_bodies.items()) {
      const json posts = Posts(email);
      if (posts.empty()) throw Failure("no post");
      json body = posts.back().at("body");
      if (body.contains("metadata")) body["metadata"].erase("gateway_attempt_id");
      for (const auto& [name, value] : members.items()) {
        if (!body.contains(name) || body[name] != value) throw Failure(name + " arrived changed");
      }
    }
    for (const auto& [email, count] : wanted_calls.items()) {
      const json calls = Http("GET", plan_.at("control").get<std::string>() + "/calls?email=" + Escaped(email));
      if (calls.at("count") != count || calls.at("ids").size() > 1) {
        throw Failure(absl::StrCat("expected ", count.dump(), " RPCs with one id, got ", calls.dump()));
      }
    }
  }

  struct StormEnd {
    std::string how;      // ok, unknown, or what else
    std::string problem;  // a text that holds what it must not
    int repeats = 0;
  };

  StormEnd OneOfStorm(Client* client, const CreateUserIntentRequest& request) const {
    StormEnd end;
    Created created = client->CreateUserIntent(request);
    for (;; ++end.repeats) {
      const Outcome out = Of(created);
      try {
        CheckTexts(out.texts);
      } catch (const Failure& failure) {
        end.problem = failure.what();
      }
      const json& fields = out.fields;
      const bool again = (fields["maybe_sent"] == true && fields["reason"].get_ref<const std::string&>().empty()) ||
                         fields["recovery"] == "RETRY_SAME_ID" || fields["reason"] == "REQUEST_IN_PROGRESS";
      if (created.ok() || !again || end.repeats == kStormRepeats) {
        end.how = created.ok() ? "ok" : fields["reason"] == "OUTCOME_UNKNOWN" ? "unknown" : out.texts.front();
        return end;
      }
      std::this_thread::sleep_for(milliseconds(50));
      created = client->Repeat(created.status(), request);
    }
  }

  void Storm(const json& step) {
    Client* client = ClientOf(step);
    const CreateUserIntentRequest pattern = Parse(step);
    const size_t calls = step.at("calls");
    std::vector<std::string> emails(calls);
    std::vector<StormEnd> ends(calls);
    std::atomic<size_t> next = 0;
    std::vector<std::thread> workers;
    for (size_t worker = step.at("concurrency"); worker > 0; --worker) {
      workers.emplace_back([&] {
        for (size_t i = next++; i < calls; i = next++) {
          CreateUserIntentRequest request = pattern;
          emails[i] = absl::StrCat(step["email_prefix"].get<std::string>(), i, step["email_suffix"].get<std::string>());
          request.set_email(emails[i]);
          try {
            ends[i] = OneOfStorm(client, request);
          } catch (const std::exception& error) {
            ends[i].how = error.what();
          }
        }
      });
    }
    for (std::thread& worker : workers) worker.join();

    const json summary = Http("GET", plan_.at("sandbox").get<std::string>() + "/accounting/summary").at("by_email");
    size_t ok = 0;
    size_t unknown = 0;
    int repeats = 0;
    int all_posts = 0;
    for (size_t i = 0; i < calls; ++i) {
      const StormEnd& end = ends[i];
      if (!end.problem.empty()) throw Failure(end.problem);
      const json account = summary.value(absl::AsciiStrToLower(emails[i]), json::object());
      const int posts = account.value("posts", 0);
      const int intents = account.value("intents", 0);
      all_posts += posts;
      repeats += end.repeats;
      ok += end.how == "ok";
      unknown += end.how == "unknown";
      if (end.how != "ok" && end.how != "unknown")
        throw Failure(absl::StrCat("call ", i, " ended otherwise: ", end.how));
      if (posts > 1 || intents > 1)
        throw Failure(absl::StrCat("call ", i, ": ", posts, " posts, ", intents, " intents"));
      if (end.how == "ok" && (posts != 1 || intents != 1)) {
        throw Failure(absl::StrCat("call ", i, " ended ok with ", posts, " posts, ", intents, " intents"));
      }
    }
    std::cout << "storm: " << calls << " calls, " << ok << " ok, " << unknown << " unknown, " << repeats
              << " repeats by hand, " << all_posts << " POSTs\n";
    if (ok < step.at("min_ok").get<size_t>()) throw Failure(absl::StrCat("only ", ok, " of ", calls, " ended ok"));
  }

  const json& plan_;
  const json& scenario_;
  std::map<std::string, std::unique_ptr<Client>> clients_;
  std::map<std::string, Outcome> outcomes_;
  std::map<std::string, Background> running_;
  std::map<std::string, BackgroundWait> waits_;
  std::map<std::string, std::unique_ptr<Watching>> watches_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: conformance PLAN\n";
    return 2;
  }
  curl_global_init(CURL_GLOBAL_DEFAULT);
  std::ifstream file(argv[1]);
  const json plan = json::parse(file);
  int passed = 0;
  int failed = 0;
  for (const json& scenario : plan.at("scenarios")) {
    const std::string name = scenario.at("name");
    try {
      Run(plan, scenario).Perform();
      ++passed;
      std::cout << "ok " << name << std::endl;
    } catch (const std::exception& error) {
      ++failed;
      std::cout << "FAILED " << name << ": " << error.what() << std::endl;
    }
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return passed > 0 && failed == 0 ? 0 : 1;
}
