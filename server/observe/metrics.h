// Metrics: every number that the gateway shows to Prometheus.
//
// Owned by the server, outlives everything that counts. All methods may be called from any thread, never throw and
// never block for long (atomics; a histogram takes a short lock). Every label set exists from the start, so counting
// looks nothing up, and a series never appears only after the first failure. Label values are fixed words: nothing of a
// request, no caller, no address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "server/observe/breaker_metrics.h"
#include "server/observe/limit_metrics.h"
#include "server/observe/policy_metrics.h"
#include "server/observe/replica_metrics.h"
#include "server/observe/tls_metrics.h"
#include "server/observe/webhook_metrics.h"

namespace userintent::observe {

// The labels of calls that ended with one reason. `reason` is a name of ErrorReason without prefix, `code` one of
// gRPC's code names ("INVALID_ARGUMENT"). Both must be literals or live as long as the process.
struct ReasonLabels {
  std::string_view reason;
  std::string_view code;
};

// What calls, POSTs and GETs are counted by. All texts are fixed and live as long as the process; their places are the
// numbers that Record...() is given.
struct Labels {
  std::span<const ReasonLabels> reasons;
  std::span<const std::string_view> methods;
  std::span<const std::string_view> post_verdicts;
  std::span<const std::string_view> read_verdicts;
  std::span<const std::string_view> read_askers;
  std::span<const std::string_view> settle_ways;
  std::span<const std::string_view> settled_states;
  WebhookLabels webhooks;
  std::span<const std::string_view> watch_events;
  std::span<const std::string_view> watch_ends;
  std::span<const std::string_view> policy_would_deny;
  std::span<const std::string_view> handshake_results;
  BreakerLabels breaker;
  std::span<const std::string_view> queue_ends;
};

// Why a caller's connection was not taken in, or not kept.
enum class RefusedConnection { kFull, kAddressFull, kNoDescriptor, kTls, kMemory };
inline constexpr int kRefusedConnections = 5;

// What a caller's connection did that ended it.
enum class EndedConnection {
  kStreams,
  kHeaderBlock,
  kUnfinished,
  kResets,
  kIdleFrames,
  kSlow,
  kMemory,
  kHandshakes,
};
inline constexpr int kEndedConnections = 8;

// Why an exchange is no longer listened to, when no answer came: the window was over, the connection was lost, or it
// gave way to another exchange.
enum class LateEnd { kSilent, kLost, kGaveWay };
inline constexpr int kLateEnds = 3;

struct BuildInfo {
  std::string_view version;
  std::string_view grpc;  // versions of the libraries in the process
  std::string_view curl;
  std::string_view sqlite;
};

class Metrics {
 public:
  // labels.reasons[n] labels the calls that RecordCall counts under the number n; the caller numbers them as
  // ErrorReason does, so 0 is success ({"NONE", "OK"}), and may add rows of its own at the end (a call that its client
  // cancelled).
  Metrics(const BuildInfo& build, const Labels& labels);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // One finished call. A number outside of the table counts as reason OTHER.
  void RecordCall(size_t method, int reason, bool replayed, absl::Duration latency) noexcept;

  // Calls admitted and not finished; every shard adds and subtracts its own.
  void AddInFlight(int delta) noexcept;
  // POSTs begun and not ended.
  void AddPostsInFlight(int delta) noexcept;

  // One POST that ended.
  void RecordPost(size_t verdict, absl::Duration latency) noexcept;

  // One answer to a POST that came after its time; and exchanges that were listened to without one.
  void RecordLateAnswer(size_t verdict) noexcept;
  void AddLateEnds(LateEnd end, uint64_t n) noexcept;
  void AddLateExchanges(int64_t delta) noexcept;  // listened to now; every shard adds and subtracts its own

  // A row whose unknown outcome became known, and evidence that contradicts what a row says.
  void CountSettled(size_t way, size_t state) noexcept;
  void CountSettleConflict(size_t way) noexcept;

  // One GET that ended, and one that was not begun, because its asker had to wait.
  void RecordRead(size_t asker, size_t verdict, absl::Duration latency) noexcept;
  void CountReadHeldBack(size_t asker) noexcept;

  // Intents that are read without being asked for: how many, how many of them because they are watched, and how long
  // the first of the others has been due. And those that are not, because there are too many.
  void SetFollowUp(int64_t followed, int64_t watched, absl::Duration late) noexcept;
  void AddFollowUpLeftOut(uint64_t n) noexcept;

  // Streams of WatchUserIntents: open ones, what they told, why they ended.
  void AddWatchStreams(int delta) noexcept;
  void CountWatchEvent(size_t event) noexcept;
  void CountWatchEnd(size_t why) noexcept;

  // One 401 or 403 that did not read like Astra's own.
  void CountEdgeRejection() noexcept;

  // What the HTTP client counts (http::Stats), as differences since the last call.
  void AddConnectionsOpened(uint64_t n) noexcept;
  void AddReuseRefused(uint64_t n) noexcept;
  void AddResendRefused(uint64_t n) noexcept;
  void AddHeadersIgnored(uint64_t n) noexcept;

  // The ledger.
  void RecordCommit(int operations, absl::Duration latency) noexcept;  // one durable batch
  void CountCommitFailure() noexcept;
  void SetLedgerWritable(bool writable) noexcept;
  void SetLedgerLastCommit(absl::Time time) noexcept;
  void SetLedgerUncommitted(int64_t outcomes) noexcept;  // outcomes that could not be made durable yet
  void SetRecoveredRows(int64_t rows) noexcept;          // rows that start-up turned from SENDING into UNKNOWN
  void CountPurged(int64_t rows) noexcept;               // rows older than the retention, forgotten
  void SetLedgerRows(int64_t rows) noexcept;
  void SetLedgerMadeAt(absl::Time time) noexcept;
  // The time of the backup that stands for a newer ledger, by the operator's word; never called: 0.
  void SetLedgerRestored(absl::Time backup) noexcept;
  void SetLedgerInPlace(bool in_place) noexcept;  // its files are where they were opened

  // One call that heard PERSON_EXISTS about a person that another caller created.
  void CountPersonToldAcross() noexcept;

  void SetDraining(bool draining) noexcept;

  // Callers' connections: open ones, and how many were sent away, as differences since the last call.
  void SetConnections(int open) noexcept;
  void AddRefusedConnections(RefusedConnection why, uint64_t n) noexcept;
  void AddEndedConnections(EndedConnection why, uint64_t n) noexcept;
  void SetPortAnswers(bool answers) noexcept;
  void CountCredentialReload(bool ok) noexcept;

  // Of Astra's webhooks, of TLS, of replicas, and of the breaker; shown with the rest.
  WebhookMetrics& webhooks() noexcept;
  TlsMetrics& tls() noexcept;
  ReplicaMetrics& replica() noexcept;
  BreakerMetrics& breaker() noexcept;

  // Of the limit of exchanges with Astra; shown with the rest.
  LimitMetrics& limit() noexcept;

  // Of who may call what; shown with the rest.
  PolicyMetrics& policy() noexcept;

  // Everything in Prometheus' text format (version 0.0.4).
  std::string Text() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
