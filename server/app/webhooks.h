// Webhooks: how the gateway receives Astra's webhooks: the door, the work on what came in by it, and what is shown of
// both: metrics, log lines, and why the server is not ready.
//
// server.cc owns it, opens it when calls are answered, and stops it before the shards; it outlives the ledger's last
// answer. ReasonsNotReady may be asked on any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/config/settings.h"
#include "server/ledger/ledger.h"
#include "server/ledger/webhook_queue.h"
#include "server/net/host_port.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/observe/webhook_metrics.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/settle_observer.h"
#include "server/usecase/webhook_work.h"
#include "server/webhook/door.h"
#include "server/webhook/keys.h"
#include "server/webhook/tls_identity.h"

namespace userintent {

class Webhooks final : public webhook::DoorObserver, public usecase::WebhookObserver {
 public:
  // What the work needs, and where it runs.
  struct Parts {
    usecase::IntentReads::Shard shard;
    ledger::Ledger& ledger;
    ledger::WebhookQueue& queue;
    usecase::IntentReads& reads;
    const usecase::AdmissionControl& admission;
    usecase::SettleObserver& settle_observer;
    observe::Metrics& metrics;
  };

  // `tls` null: in plaintext. The status names the flag.
  static absl::StatusOr<std::unique_ptr<Webhooks>> Open(const config::Settings& settings, const webhook::Keys& keys,
                                                        const webhook::TlsIdentity* tls, const Parts& parts);

  // What waits for metrics to be counted by.
  static observe::WebhookLabels Labels();

  // Receives nothing more, after the requests that have begun are answered, and begins no work.
  void Stop();

  net::HostPort address() const { return {host_, door_->port()}; }

  // Why webhooks should be looked after: fixed words.
  std::vector<std::string> ReasonsNotReady() const;

  void OnAnswer(webhook::Answer answer, SteadyClock::duration took) override;
  void OnSignature(webhook::KeyKind key, webhook::Form form) override;
  void OnCut(webhook::Cut why) override;
  void OnConnections(size_t open) override;
  void OnWebhookEnded(usecase::WebhookResult result) override;
  void OnWebhookBacklog(size_t waiting, absl::Time oldest) override;

 private:
  Webhooks(const config::Settings& settings, const Parts& parts);

  const std::string host_;
  const size_t most_waiting_;
  observe::WebhookMetrics& metrics_;
  observe::LogLimiter previous_key_{std::chrono::hours(1)};
  std::atomic<size_t> waiting_{0};
  std::atomic<int64_t> oldest_{0};  // Unix seconds; 0: none waits
  usecase::WebhookWork work_;
  std::unique_ptr<webhook::Door> door_;
};

}  // namespace userintent
