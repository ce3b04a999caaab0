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
                    kQueueEnds}};
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

TEST_F(MetricsTest, EverySeriesExistsBeforeTheFirstCall) {
  EXPECT_EQ(Value(Calls("CreateUserIntent", "OK", "NONE")), 0);
  EXPECT_EQ(Value(Calls("CreateUserIntent", "INVALID_ARGUMENT", "MALFORMED_REQUEST")), 0);
  EXPECT_EQ(Value(Calls("GetCreation", "INVALID_ARGUMENT", "UNKNOWN_FIELDS")), 0);
  EXPECT_EQ(Value("userintent_upstream_posts_total{verdict=\"unknown\"}"), 0);
  EXPECT_EQ(Value("userintent_upstream_resend_refused_total"), 0);
  EXPECT_EQ(Value("userintent_upstream_headers_ignored_total"), 0);
  EXPECT_EQ(Value("userintent_call_seconds_count{method=\"GetCreation\"}"), 0);
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
  EXPECT_EQ(Value("userintent_call_seconds_bucket{method=\"CreateUserIntent\",le=\"0.005\"}"), 2);
  EXPECT_EQ(Value("userintent_call_seconds_bucket{method=\"CreateUserIntent\",le=\"+Inf\"}"), 3);
  EXPECT_NEAR(Value("userintent_call_seconds_sum{method=\"CreateUserIntent\"}"), 3.006, 1e-9);
}

TEST_F(MetricsTest, AReasonOutOfTheTableCountsAsOther) {
  for (const int reason : {-1, 3, 4, 1 << 30}) {
    metrics_.RecordCall(1, reason, false, absl::ZeroDuration());
  }
  EXPECT_EQ(Value(Calls("GetCreation", "UNKNOWN", "OTHER")), 4);
}

TEST_F(MetricsTest, CountsPostsUnderTheirVerdict) {
  for (size_t i = 0; i < std::size(kVerdicts); ++i) {
    for (size_t n = 0; n <= i; ++n) metrics_.RecordPost(i, absl::Milliseconds(20));
  }
  for (size_t i = 0; i < std::size(kVerdicts); ++i) {
    EXPECT_EQ(Value("userintent_upstream_posts_total{verdict=\"" + std::string(kVerdicts[i]) + "\"}"), i + 1);
  }
  EXPECT_EQ(Value("userintent_upstream_post_seconds_count"), 10);
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
  EXPECT_EQ(Value("userintent_call_seconds_count{method=\"CreateUserIntent\"}"), 20000);
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
