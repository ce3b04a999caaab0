#include "server/observe/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"

namespace userintent::observe {
namespace {

constexpr ReasonLabels kReasons[] = {
    {"NONE", "OK"},
    {"MALFORMED_REQUEST", "INVALID_ARGUMENT"},
    {"UNKNOWN_FIELDS", "INVALID_ARGUMENT"},
};

constexpr std::string_view kMethods[] = {"CreateUserIntent", "GetCreation"};
constexpr std::string_view kVerdicts[] = {"created", "refused", "not_sent", "unknown"};
constexpr std::string_view kAskers[] = {"caller", "webhook"};
constexpr std::string_view kWays[] = {"late_answer", "webhook"};
constexpr std::string_view kStates[] = {"succeeded", "failed"};
constexpr std::string_view kQueueEnds[] = {"slot", "expired"};
constexpr std::string_view kHandshakes[] = {"SUCCESS", "CERTIFICATE_REVOKED"};
constexpr std::string_view kErrors[] = {"timeout", "connect"};
constexpr std::string_view kBreakerStates[] = {"closed", "open"};
constexpr std::string_view kBreakerCauses[] = {"failures", "credentials"};
constexpr std::string_view kProbeResults[] = {"good", "failed"};

// Every series with its value, by the text before the last space.
std::map<std::string, double> Series(const std::string& text) {
  std::map<std::string, double> series;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    double value = -1;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
    series[line.substr(0, space)] = value;
  }
  return series;
}

class MetricsTest : public testing::Test {
 protected:
  double Value(const std::string& name) {
    const std::map<std::string, double> series = Series(metrics_.Text());
    const auto found = series.find(name);
    if (found == series.end()) {
      ADD_FAILURE() << "no series " << name << " in\n" << metrics_.Text();
      return -1;
    }
    return found->second;
  }

  Metrics metrics_{{"1.2.3", "1.51", "7.88", "3.40"},
                   {kReasons,
                    kMethods,
                    kVerdicts,
                    kVerdicts,
                    kAskers,
                    kWays,
                    kStates,
                    {},
                    {},
                    {},
                    {},
                    kHandshakes,
                    {kBreakerStates, kBreakerCauses, kProbeResults},
                    kQueueEnds,
                    "a.v1.Service",
                    kErrors}};
};

std::string Calls(const std::string& method, const std::string& code, const std::string& reason) {
  return "userintent_calls_total{code=\"" + code + "\",method=\"" + method + "\",reason=\"" + reason + "\"}";
}

TEST_F(MetricsTest, TheBreakerIsInOneState) {
  const auto state = [this](const char* name) {
    return Value("userintent_upstream_breaker_state{state=\"" + std::string(name) + "\"}");
  };
  EXPECT_EQ(state("closed"), 1);
  EXPECT_EQ(state("open"), 0);
  metrics_.breaker().SetState(1);
  EXPECT_EQ(state("closed"), 0);
  EXPECT_EQ(state("open"), 1);
  metrics_.breaker().CountOpened(1);
  metrics_.breaker().CountProbe(0);
  EXPECT_EQ(Value("userintent_upstream_breaker_opened_total{cause=\"credentials\"}"), 1);
  EXPECT_EQ(Value("userintent_upstream_breaker_probes_total{result=\"good\"}"), 1);
  EXPECT_EQ(Value("userintent_upstream_breaker_probes_total{result=\"failed\"}"), 0);
}

TEST_F(MetricsTest, TheLimitAndItsQueue) {
  EXPECT_EQ(Value("userintent_upstream_queue_ends_total{end=\"expired\"}"), 0);
  metrics_.limit().Set(40, 39, 3);
  metrics_.limit().RecordWait(1, absl::Milliseconds(20));
  metrics_.limit().RecordWait(1, absl::Seconds(3));
  metrics_.limit().RecordWait(0, absl::ZeroDuration());
  EXPECT_EQ(Value("userintent_upstream_limit"), 40);
  EXPECT_EQ(Value("userintent_upstream_slots"), 39);
  EXPECT_EQ(Value("userintent_upstream_queue"), 3);
  EXPECT_EQ(Value("userintent_upstream_queue_ends_total{end=\"expired\"}"), 2);
  EXPECT_EQ(Value("userintent_upstream_queue_ends_total{end=\"slot\"}"), 1);
  EXPECT_EQ(Value("userintent_upstream_queue_seconds_count"), 3);
  EXPECT_EQ(Value("userintent_upstream_queue_seconds_bucket{le=\"0.025\"}"), 2);
}

std::string Duration(const std::string& method, const std::string& status, const std::string& part,
                     const std::string& le = "") {
  return "grpc_server_call_duration_seconds_" + part + "{grpc_method=\"" + method + "\",grpc_status=\"" + status +
         "\"" + (le.empty() ? "" : ",le=\"" + le + "\"") + "}";
}

TEST_F(MetricsTest, EverySeriesExistsBeforeTheFirstCall) {
  EXPECT_EQ(Value(Calls("CreateUserIntent", "OK", "NONE")), 0);
  EXPECT_EQ(Value(Calls("CreateUserIntent", "INVALID_ARGUMENT", "MALFORMED_REQUEST")), 0);
  EXPECT_EQ(Value(Calls("GetCreation", "INVALID_ARGUMENT", "UNKNOWN_FIELDS")), 0);
  EXPECT_EQ(Value("userintent_upstream_posts_total{verdict=\"unknown\"}"), 0);
  EXPECT_EQ(Value("userintent_upstream_resend_refused_total"), 0);
  EXPECT_EQ(Value("userintent_upstream_headers_ignored_total"), 0);
  EXPECT_EQ(Value("grpc_server_call_started_total{grpc_method=\"a.v1.Service/GetCreation\"}"), 0);
  EXPECT_EQ(Value(Duration("a.v1.Service/GetCreation", "INVALID_ARGUMENT", "count")), 0);
  EXPECT_EQ(Value(Duration("other", "OK", "count")), 0);
  EXPECT_EQ(Value("userintent_build_info{curl=\"7.88\",grpc=\"1.51\",sqlite=\"3.40\",version=\"1.2.3\"}"), 1);
  EXPECT_GT(Value("userintent_start_time_seconds"), 1.7e9);
}

TEST_F(MetricsTest, CountsCallsUnderTheirReason) {
  metrics_.RecordCall(0, 0, false, absl::Milliseconds(3));
  metrics_.RecordCall(0, 2, false, absl::Milliseconds(3));
  metrics_.RecordCall(0, 2, true, absl::Seconds(3));
  metrics_.RecordCall(1, 1, true, absl::Microseconds(3));
  EXPECT_EQ(Value(Calls("CreateUserIntent", "OK", "NONE")), 1);
  EXPECT_EQ(Value(Calls("CreateUserIntent", "INVALID_ARGUMENT", "UNKNOWN_FIELDS")), 2);
  EXPECT_EQ(Value(Calls("GetCreation", "INVALID_ARGUMENT", "UNKNOWN_FIELDS")), 0);
  EXPECT_EQ(Value(Calls("GetCreation", "INVALID_ARGUMENT", "MALFORMED_REQUEST")), 1);
  EXPECT_EQ(Value("userintent_replayed_calls_total{method=\"CreateUserIntent\"}"), 1);
  const std::string create = "a.v1.Service/CreateUserIntent";
  EXPECT_EQ(Value(Duration(create, "OK", "bucket", "0.005")), 1);
  EXPECT_EQ(Value(Duration(create, "INVALID_ARGUMENT", "bucket", "0.005")), 1);
  EXPECT_EQ(Value(Duration(create, "INVALID_ARGUMENT", "count")), 2);
  EXPECT_NEAR(Value(Duration(create, "INVALID_ARGUMENT", "sum")), 3.003, 1e-9);
  EXPECT_EQ(Value(Duration("a.v1.Service/GetCreation", "INVALID_ARGUMENT", "bucket", "0.0001")), 1);
}

TEST_F(MetricsTest, CallsAreCountedAsA66Does) {
  metrics_.CountCallStarted(1);
  metrics_.CountCallStarted(2);
  metrics_.CountCallStarted(2);
  metrics_.RecordOtherCall("OK", absl::Milliseconds(1));
  metrics_.RecordOtherCall("INVALID_ARGUMENT", absl::Milliseconds(1));
  metrics_.RecordOtherCall("a code without a series", absl::Milliseconds(1));
  EXPECT_EQ(Value("grpc_server_call_started_total{grpc_method=\"a.v1.Service/CreateUserIntent\"}"), 0);
  EXPECT_EQ(Value("grpc_server_call_started_total{grpc_method=\"a.v1.Service/GetCreation\"}"), 1);
  EXPECT_EQ(Value("grpc_server_call_started_total{grpc_method=\"other\"}"), 2);
  EXPECT_EQ(Value(Duration("other", "OK", "count")), 1);
  EXPECT_EQ(Value(Duration("other", "INVALID_ARGUMENT", "count")), 1);
  EXPECT_EQ(Value(Duration("other", "UNKNOWN", "count")), 1);
}

TEST_F(MetricsTest, RequestsToAstraAreCountedAsOpenTelemetryDoes) {
  const std::string name = "http_client_request_duration_seconds_count";
  EXPECT_EQ(Value(name + "{http_request_method=\"POST\",http_response_status_code=\"200\"}"), 0);
  EXPECT_EQ(Value(name + "{error_type=\"timeout\",http_request_method=\"GET\"}"), 0);
  metrics_.http_client().Record(HttpMethod::kPost, 200, "", absl::Milliseconds(30));
  metrics_.http_client().Record(HttpMethod::kPost, 422, "", absl::Milliseconds(30));
  metrics_.http_client().Record(HttpMethod::kPost, 0, "connect", absl::Milliseconds(30));
  metrics_.http_client().Record(HttpMethod::kGet, 200, "timeout", absl::Seconds(30));
  metrics_.http_client().Record(HttpMethod::kGet, 304, "", absl::Milliseconds(30));
  EXPECT_EQ(Value(name + "{http_request_method=\"POST\",http_response_status_code=\"200\"}"), 1);
  EXPECT_EQ(Value(name + "{error_type=\"422\",http_request_method=\"POST\",http_response_status_code=\"422\"}"), 1);
  EXPECT_EQ(Value(name + "{error_type=\"connect\",http_request_method=\"POST\"}"), 1);
  EXPECT_EQ(Value(name + "{error_type=\"timeout\",http_request_method=\"GET\",http_response_status_code=\"200\"}"), 1);
  EXPECT_EQ(Value(name + "{http_request_method=\"GET\",http_response_status_code=\"304\"}"), 1);
}

TEST_F(MetricsTest, AstraCannotMakeSeriesWithoutEnd) {
  for (int status = 200; status < 2000; ++status) {
    metrics_.http_client().Record(HttpMethod::kPost, status, "", absl::Milliseconds(1));
  }
  size_t series = 0;
  for (const auto& [name, value] : Series(metrics_.Text())) {
    if (name.starts_with("http_client_request_duration_seconds_count")) ++series;
  }
  EXPECT_LE(series, 203u);
  EXPECT_GT(Value("http_client_request_duration_seconds_count{error_type=\"other\",http_request_method=\"POST\","
                  "http_response_status_code=\"other\"}"),
            1000);
}

TEST_F(MetricsTest, WhatIsUnresolvedAndWhatWasLeft) {
  EXPECT_EQ(Value("userintent_unresolved_requests"), 0);
  metrics_.SetUnresolved(3, absl::Seconds(90));
  EXPECT_EQ(Value("userintent_unresolved_requests"), 3);
  EXPECT_EQ(Value("userintent_unresolved_oldest_seconds"), 90);
  for (const int left : {-1, 0, 2, 4, 100}) metrics_.CountRefusal(left);
  EXPECT_EQ(Value("userintent_refusals_by_attempts_left_total{left=\"0\"}"), 2);
  EXPECT_EQ(Value("userintent_refusals_by_attempts_left_total{left=\"1\"}"), 0);
  EXPECT_EQ(Value("userintent_refusals_by_attempts_left_total{left=\"2\"}"), 1);
  EXPECT_EQ(Value("userintent_refusals_by_attempts_left_total{left=\"more\"}"), 2);
}

TEST_F(MetricsTest, AReasonOutOfTheTableCountsAsOther) {
  for (const int reason : {-1, 3, 4, 1 << 30}) {
    metrics_.RecordCall(1, reason, false, absl::ZeroDuration());
  }
  EXPECT_EQ(Value(Calls("GetCreation", "UNKNOWN", "OTHER")), 4);
}

TEST_F(MetricsTest, CountsPostsUnderTheirVerdict) {
  for (size_t i = 0; i < std::size(kVerdicts); ++i) {
    for (size_t n = 0; n <= i; ++n) metrics_.RecordPost(i);
  }
  for (size_t i = 0; i < std::size(kVerdicts); ++i) {
    EXPECT_EQ(Value("userintent_upstream_posts_total{verdict=\"" + std::string(kVerdicts[i]) + "\"}"), i + 1);
  }
  metrics_.AddConnectionsOpened(3);
  metrics_.AddReuseRefused(2);
  metrics_.AddResendRefused(1);
  metrics_.AddHeadersIgnored(2);
  metrics_.CountEdgeRejection();
  EXPECT_EQ(Value("userintent_upstream_connections_opened_total"), 3);
  EXPECT_EQ(Value("userintent_upstream_reuse_refused_total"), 2);
  EXPECT_EQ(Value("userintent_upstream_resend_refused_total"), 1);
  EXPECT_EQ(Value("userintent_upstream_headers_ignored_total"), 2);
  EXPECT_EQ(Value("userintent_upstream_edge_rejections_total"), 1);
}

TEST_F(MetricsTest, GaugesFollow) {
  metrics_.AddInFlight(5);
  metrics_.AddInFlight(-2);
  metrics_.AddPostsInFlight(4);
  metrics_.SetLedgerWritable(true);
  metrics_.SetLedgerUncommitted(2);
  metrics_.SetRecoveredRows(9);
  metrics_.SetDraining(true);
  metrics_.RecordCommit(17, absl::Milliseconds(2));
  metrics_.CountCommitFailure();
  metrics_.CountCredentialReload(true);
  metrics_.CountCredentialReload(true);
  metrics_.CountCredentialReload(false);
  EXPECT_EQ(Value("userintent_calls_in_flight"), 3);
  EXPECT_EQ(Value("userintent_upstream_posts_in_flight"), 4);
  EXPECT_EQ(Value("userintent_ledger_writable"), 1);
  EXPECT_EQ(Value("userintent_ledger_last_commit_timestamp_seconds"), 0);
  metrics_.SetLedgerLastCommit(absl::FromUnixMillis(1'700'000'000'500));
  EXPECT_EQ(Value("userintent_ledger_last_commit_timestamp_seconds"), 1'700'000'000.5);
  EXPECT_EQ(Value("userintent_ledger_uncommitted_outcomes"), 2);
  EXPECT_EQ(Value("userintent_ledger_recovered_rows"), 9);
  metrics_.CountPurged(4);
  metrics_.CountPurged(1);
  EXPECT_EQ(Value("userintent_ledger_purged_rows_total"), 5);
  metrics_.CountPersonToldAcross();
  EXPECT_EQ(Value("userintent_person_exists_across_callers_total"), 1);
  EXPECT_EQ(Value("userintent_ledger_restored_at_seconds"), 0);
  EXPECT_EQ(Value("userintent_ledger_in_place"), 1);
  metrics_.SetLedgerRows(6);
  metrics_.SetLedgerMadeAt(absl::FromUnixMillis(1'700'000'000'500));
  metrics_.SetLedgerRestored(absl::FromUnixSeconds(1'700'000'001));
  metrics_.SetLedgerInPlace(false);
  EXPECT_EQ(Value("userintent_ledger_rows"), 6);
  EXPECT_EQ(Value("userintent_ledger_made_at_seconds"), 1'700'000'000.5);
  EXPECT_EQ(Value("userintent_ledger_restored_at_seconds"), 1'700'000'001);
  EXPECT_EQ(Value("userintent_ledger_in_place"), 0);
  EXPECT_EQ(Value("userintent_draining"), 1);
  metrics_.SetConnections(7);
  metrics_.SetPortAnswers(true);
  metrics_.AddRefusedConnections(RefusedConnection::kFull, 1);
  metrics_.AddRefusedConnections(RefusedConnection::kAddressFull, 2);
  metrics_.AddRefusedConnections(RefusedConnection::kNoDescriptor, 3);
  metrics_.AddRefusedConnections(RefusedConnection::kTls, 4);
  metrics_.AddRefusedConnections(RefusedConnection::kMemory, 5);
  uint64_t ended = 10;
  for (int i = 0; i < kEndedConnections; ++i) metrics_.AddEndedConnections(static_cast<EndedConnection>(i), ended++);
  EXPECT_EQ(Value("userintent_connections"), 7);
  EXPECT_EQ(Value("userintent_port_answers"), 1);
  EXPECT_EQ(Value("userintent_connections_refused_total{reason=\"max_connections\"}"), 1);
  EXPECT_EQ(Value("userintent_connections_refused_total{reason=\"max_connections_per_address\"}"), 2);
  EXPECT_EQ(Value("userintent_connections_refused_total{reason=\"descriptors\"}"), 3);
  EXPECT_EQ(Value("userintent_connections_refused_total{reason=\"tls\"}"), 4);
  EXPECT_EQ(Value("userintent_connections_refused_total{reason=\"memory\"}"), 5);
  EXPECT_EQ(Value("userintent_connections_ended_total{reason=\"calls\"}"), 10);
  EXPECT_EQ(Value("userintent_connections_ended_total{reason=\"handshakes\"}"), 17);
  EXPECT_EQ(Value("userintent_ledger_commit_operations_sum"), 17);
  EXPECT_EQ(Value("userintent_ledger_commit_seconds_bucket{le=\"0.0025\"}"), 1);
  EXPECT_EQ(Value("userintent_ledger_commit_failures_total"), 1);
  EXPECT_EQ(Value("userintent_credential_reloads_total{result=\"ok\"}"), 2);
  EXPECT_EQ(Value("userintent_credential_reloads_total{result=\"failed\"}"), 1);
  metrics_.SetLedgerWritable(false);
  EXPECT_EQ(Value("userintent_ledger_writable"), 0);
}

TEST_F(MetricsTest, CountsFromSeveralThreadsAddUp) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        metrics_.RecordCall(0, 0, false, absl::Milliseconds(1));
        metrics_.AddInFlight(1);
        if (i % 1000 == 0) {
          EXPECT_FALSE(metrics_.Text().empty());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Value(Calls("CreateUserIntent", "OK", "NONE")), 20000);
  EXPECT_EQ(Value(Duration("a.v1.Service/CreateUserIntent", "OK", "count")), 20000);
  EXPECT_EQ(Value("userintent_calls_in_flight"), 20000);
}

TEST_F(MetricsTest, LateAnswersAndWhatTheySettle) {
  metrics_.RecordLateAnswer(0);
  metrics_.AddLateEnds(LateEnd::kSilent, 2);
  metrics_.AddLateEnds(LateEnd::kLost, 3);
  metrics_.AddLateEnds(LateEnd::kGaveWay, 4);
  metrics_.AddLateExchanges(7);
  metrics_.AddLateExchanges(-2);
  metrics_.CountSettled(0, 1);
  metrics_.CountSettleConflict(1);
  EXPECT_EQ(Value("userintent_late_exchanges"), 5);
  EXPECT_EQ(Value("userintent_late_answers_total{outcome=\"created\"}"), 1);
  EXPECT_EQ(Value("userintent_late_answers_total{outcome=\"unknown\"}"), 0);
  EXPECT_EQ(Value("userintent_late_answers_total{outcome=\"silent\"}"), 2);
  EXPECT_EQ(Value("userintent_late_answers_total{outcome=\"lost\"}"), 3);
  EXPECT_EQ(Value("userintent_late_answers_total{outcome=\"gave_way\"}"), 4);
  EXPECT_EQ(Value("userintent_settled_total{state=\"failed\",way=\"late_answer\"}"), 1);
  EXPECT_EQ(Value("userintent_settled_total{state=\"succeeded\",way=\"late_answer\"}"), 0);
  EXPECT_EQ(Value("userintent_settle_conflicts_total{way=\"webhook\"}"), 1);
}

TEST_F(MetricsTest, Tls) {
  EXPECT_EQ(Value("grpc_server_tls_handshakes_total{result=\"CERTIFICATE_REVOKED\"}"), 0);
  metrics_.tls().AddHandshakes(0, 3);
  metrics_.tls().AddHandshakes(1, 2);
  EXPECT_EQ(Value("grpc_server_tls_handshakes_total{result=\"SUCCESS\"}"), 3);
  EXPECT_EQ(Value("grpc_server_tls_handshakes_total{result=\"CERTIFICATE_REVOKED\"}"), 2);
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"client_crl\"}"), 0);
  metrics_.tls().SetEnd(Ending::kServer, std::chrono::system_clock::from_time_t(1893456000));
  metrics_.tls().SetEnd(Ending::kClientCa, std::chrono::system_clock::from_time_t(1893456001));
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"server\"}"), 1893456000);
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"client_ca\"}"), 1893456001);
  metrics_.tls().SetEnd(Ending::kWebhook, std::chrono::system_clock::from_time_t(1893456002));
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"webhook\"}"), 1893456002);
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"astra\"}"), 0);
  EXPECT_EQ(Value("userintent_certificate_not_after_seconds{which=\"astra_ca\"}"), 0);
}

}  // namespace
}  // namespace userintent::observe
