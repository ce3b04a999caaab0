// An Astra that is only read, and answers when the test says so; and an observer that keeps what it is told.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/astra/astra.h"
#include "server/usecase/intent_reads.h"

namespace userintent::usecase {

class FakeAstraReads final : public astra::Client {
 public:
  struct Sent {
    std::string id;
    absl::AnyInvocable<void(astra::ReadOutcome)> done;  // empty once it has been answered
  };

  CallId Create(const v1::CreateUserIntentRequest&, const Uuid&, std::shared_ptr<const Lease>, Done, Done) override {
    ADD_FAILURE() << "a read creates";
    return 0;
  }
  void Get(std::string user_intent_id, absl::AnyInvocable<void(astra::ReadOutcome)> done) override {
    gets.push_back({std::move(user_intent_id), std::move(done)});
  }
  bool CancelUnsent(CallId) override { return false; }
  bool RefreshCredentials() override { return std::exchange(new_credentials, false); }

  // Answers the last GET.
  void Answer(const astra::ReadOutcome& outcome) { std::exchange(gets.back().done, nullptr)(outcome); }
  void Answer(astra::ReadVerdict verdict, int status = 0, std::optional<absl::Duration> retry_after = std::nullopt) {
    astra::ReadOutcome outcome;
    outcome.verdict = verdict;
    outcome.http_status = status;
    outcome.retry_after = retry_after;
    outcome.astra_request_id = "req-9";
    Answer(outcome);
  }
  void AnswerStatus(const std::string& word, const std::string& user_id = "",
                    v1::VerificationType type = v1::VERIFICATION_TYPE_UNSPECIFIED) {
    astra::ReadOutcome outcome;
    outcome.verdict = astra::ReadVerdict::kRead;
    outcome.http_status = 200;
    outcome.astra_status = word;
    outcome.user_id = user_id;
    outcome.verification_type = type;
    Answer(outcome);
  }

  std::vector<Sent> gets;
  bool new_credentials = false;
};

// What an IntentReads tells.
class ReadWatcher final : public ReadObserver {
 public:
  void OnRead(Asker asker, const std::optional<Uuid>& request_id, const astra::ReadOutcome& outcome,
              SteadyClock::duration) override {
    EXPECT_NE(request_id, Uuid{});
    askers.push_back(asker);
    ended.push_back(outcome.verdict);
    request_ids.push_back(request_id);
  }
  void OnReadHeldBack(Asker asker) override { held_back.push_back(asker); }

  std::vector<astra::ReadVerdict> ended;
  std::vector<Asker> askers;  // of those
  std::vector<std::optional<Uuid>> request_ids;
  std::vector<Asker> held_back;
};

}  // namespace userintent::usecase
