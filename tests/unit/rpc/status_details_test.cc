// A CallError in gRPC's words: code, message, details, and whether the call may be repeated.
#include "server/rpc/status_details.h"

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace userintent::rpc {
namespace {

using usecase::CallError;

template <typename Detail>
std::optional<Detail> Find(const RpcError& error) {
  google::rpc::Status status;
  EXPECT_TRUE(status.ParseFromString(error.status.error_details()));
  for (const auto& any : status.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

TEST(ToRpcError, EveryReasonIsTheRowOfItsTable) {
  for (int number = 1; number < v1::ErrorReason_ARRAYSIZE; ++number) {
    const auto reason = static_cast<v1::ErrorReason>(number);
    SCOPED_TRACE(usecase::ReasonName(number));
    const usecase::ErrorRow& row = usecase::RowOf(reason);
    EXPECT_EQ(row.reason, reason) << "is not in the table";
    const RpcError error = ToRpcError(CallError::Of(reason));
    EXPECT_EQ(static_cast<int>(error.status.error_code()), static_cast<int>(row.code));
    EXPECT_EQ(error.status.error_message(), row.message);
    const auto info = Find<google::rpc::ErrorInfo>(error);
    ASSERT_TRUE(info);
    EXPECT_EQ(info->reason(), usecase::ReasonName(number));
    EXPECT_EQ(info->domain(), "userintent.v1");
    EXPECT_EQ(info->metadata().at("sent"), usecase::SentWord(row.sent));
    EXPECT_EQ(info->metadata().at("recovery"), usecase::RecoveryWord(row.recovery));
    EXPECT_EQ(info->metadata_size(), 2);
    EXPECT_EQ(Find<google::rpc::RetryInfo>(error).has_value(), row.retry_info);
    EXPECT_EQ(error.pushback_never, !row.retry_info) << "neither or both";
    EXPECT_LE(error.status.error_message().size() + error.status.error_details().size(), kMaxErrorBytes);
  }
}

TEST(ToRpcError, ADelayIsRoundedUpToAMillisecondAndNeverZero) {
  const std::pair<absl::Duration, int64_t> cases[] = {
      {absl::ZeroDuration(), 1}, {absl::Microseconds(1), 1}, {absl::Microseconds(1001), 2}, {absl::Seconds(7), 7000}};
  for (const auto& [delay, milliseconds] : cases) {
    CallError error = CallError::Of(v1::ERROR_REASON_DRAINING);
    error.retry_after = delay;
    const auto retry = Find<google::rpc::RetryInfo>(ToRpcError(error));
    ASSERT_TRUE(retry);
    EXPECT_EQ(retry->retry_delay().seconds() * 1000 + retry->retry_delay().nanos() / 1000000, milliseconds);
  }
}

TEST(ToRpcError, WhatIsKnownIsTold) {
  CallError error = CallError::Of(v1::ERROR_REASON_PERSON_EXISTS);
  error.sent.reset();
  error.attempts = {1, 2};
  error.http_status = 418;
  error.astra_request_id = "req-1";
  error.existing_intent_id = "intent-1";
  error.unresolved_request_id = Uuid{};
  error.replayed = true;
  error.message = "another text";
  const RpcError converted = ToRpcError(error);
  EXPECT_EQ(converted.status.error_message(), "another text");
  const auto info = Find<google::rpc::ErrorInfo>(converted);
  ASSERT_TRUE(info);
  const auto& metadata = info->metadata();
  EXPECT_EQ(metadata.count("sent"), 0u);
  EXPECT_EQ(metadata.at("attempts_used_min"), "1");
  EXPECT_EQ(metadata.at("attempts_used_max"), "2");
  EXPECT_EQ(metadata.at("http_status"), "418");
  EXPECT_EQ(metadata.at("astra_request_id"), "req-1");
  EXPECT_EQ(metadata.at("user_intent_id"), "intent-1");
  EXPECT_EQ(metadata.at("unresolved_request_id"), "00000000-0000-0000-0000-000000000000");
  EXPECT_EQ(metadata.at("replayed"), "true");
  const auto resource = Find<google::rpc::ResourceInfo>(converted);
  ASSERT_TRUE(resource);
  EXPECT_EQ(resource->resource_name(), "intent-1");
}

TEST(ToRpcError, EveryViolationThatARequestMayHaveFits) {
  const std::vector<intent::Violation> all =
      intent::Validate(v1::CreateUserIntentRequest(), {}, absl::CivilDay(2026, 1, 1));
  ASSERT_GT(all.size(), 10u);
  const RpcError error = ToRpcError(CallError::Of(all));
  const auto bad = Find<google::rpc::BadRequest>(error);
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->field_violations_size(), static_cast<int>(all.size()));
  EXPECT_LE(error.status.error_message().size() + error.status.error_details().size(), kMaxErrorBytes);
}

TEST(ToRpcError, NoNumberOfViolationsMakesItTooLong) {
  const RpcError error = ToRpcError(CallError::Of(std::vector<intent::Violation>(1000, {"field", "a description"})));
  EXPECT_LE(error.status.error_message().size() + error.status.error_details().size(), kMaxErrorBytes);
  EXPECT_GT(Find<google::rpc::BadRequest>(error)->field_violations_size(), 50);
}

TEST(ToRpcError, TheSameErrorIsTheSameBytes) {
  CallError error = CallError::FromLedger([] {
    ledger::BeginAnswer answer;
    answer.verdict = ledger::BeginVerdict::kEmailUnresolved;
    answer.unresolved = Uuid{};
    return answer;
  }());
  EXPECT_EQ(ToRpcError(error).status.error_details(), ToRpcError(error).status.error_details());
  EXPECT_TRUE(error.attempts);
  EXPECT_EQ(error.reason, v1::ERROR_REASON_EMAIL_UNRESOLVED);
}

}  // namespace
}  // namespace userintent::rpc
