#include "server/app/webhooks.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/base/process.h"
#include "server/base/time.h"
#include "server/observe/log.h"

namespace userintent {
namespace {

using observe::Level;
using observe::Log;

constexpr absl::Duration kTooOld = absl::Minutes(15);  // Astra cannot be asked, or the budget is too small

webhook::DoorOptions DoorOptionsOf(const config::Settings& settings) {
  webhook::DoorOptions options;
  options.listen = settings.webhook_listen;
  options.path = settings.webhook_path.text;
  // Whatever is asked for, descriptors are left over for callers, the ledger and Astra.
  const auto possible = static_cast<int>(std::min<rlim_t>(RaiseDescriptorLimit(), 1 << 24)) / 4;
  options.max_connections = std::max(1, std::min(settings.webhook_connections, possible));
  // On loopback the ingress is the one address.
  const int fair =
      settings.webhook_listen.loopback() ? options.max_connections : std::max(1, options.max_connections / 2);
  options.max_per_address =
      settings.webhook_connections_per_address == 0 ? fair : settings.webhook_connections_per_address;
  return options;
}

}  // namespace

Webhooks::Webhooks(const config::Settings& settings, const Parts& parts)
    : host_(settings.webhook_listen.host),
      most_waiting_(static_cast<size_t>(settings.webhook_queue)),
      metrics_(parts.metrics.webhooks()),
      work_({parts.shard, parts.ledger, parts.queue, parts.reads, parts.admission, *this, parts.settle_observer,
             &NowMicros}) {}

absl::StatusOr<std::unique_ptr<Webhooks>> Webhooks::Open(const config::Settings& settings, const webhook::Keys& keys,
                                                         const webhook::TlsIdentity* tls, const Parts& parts) {
  std::unique_ptr<Webhooks> webhooks(new Webhooks(settings, parts));
  auto door = webhook::Door::Open(DoorOptionsOf(settings), keys, tls, parts.queue, *webhooks);
  if (!door.ok()) {
    return absl::UnavailableError(
        absl::StrCat("--webhook_listen: cannot listen on ", settings.webhook_listen.Text(), ": is the port in use?"));
  }
  webhooks->door_ = *std::move(door);
  webhooks->work_.Start();
  return webhooks;
}

observe::WebhookLabels Webhooks::Labels() {
  static const auto& answers = *[] {
    auto* all = new std::vector<std::string_view>;
    for (const webhook::AnswerRow& row : webhook::kAnswers) all->push_back(row.name);
    return all;
  }();
  return {answers, webhook::kKeyNames, webhook::kFormNames, webhook::kCutNames, usecase::kWebhookResults};
}

void Webhooks::Stop() {
  door_->Stop();
  work_.Stop();
}

std::vector<std::string> Webhooks::ReasonsNotReady() const {
  std::vector<std::string> reasons;
  if (waiting_ >= most_waiting_) reasons.emplace_back("the queue of webhooks is full");
  const int64_t oldest = oldest_;
  if (oldest != 0 && absl::Now() - absl::FromUnixSeconds(oldest) > kTooOld) {
    reasons.emplace_back("webhooks wait for too long");
  }
  return reasons;
}

void Webhooks::OnAnswer(webhook::Answer answer, SteadyClock::duration took) {
  using webhook::Answer;
  metrics_.RecordAnswer(static_cast<size_t>(answer), absl::FromChrono(took));
  if (answer == Answer::kStored) work_.Wake();
  if (answer == Answer::kStored || answer == Answer::kWaits || answer == Answer::kDone) {
    metrics_.SetLastReceived(absl::Now());
  }
}

void Webhooks::OnSignature(webhook::KeyKind key, webhook::Form form) {
  metrics_.CountSignature(static_cast<size_t>(key), static_cast<size_t>(form));
  if (key != webhook::KeyKind::kPrevious) return;
  if (const auto suppressed = previous_key_.Allow()) {
    Log(Level::kWarn, "webhook_signed_with_previous_key", {{"suppressed", *suppressed}});
  }
}

void Webhooks::OnCut(webhook::Cut why) { metrics_.CountCut(static_cast<size_t>(why)); }

void Webhooks::OnConnections(size_t open) { metrics_.SetConnections(open); }

void Webhooks::OnWebhookEnded(usecase::WebhookResult result) {
  metrics_.CountEnded(static_cast<size_t>(result));
  if (result == usecase::WebhookResult::kSettled) metrics_.CountSettled();
}

void Webhooks::OnWebhookBacklog(size_t waiting, absl::Time oldest) {
  const bool any = oldest != absl::InfiniteFuture();
  waiting_ = waiting;
  oldest_ = any ? absl::ToUnixSeconds(oldest) : 0;
  metrics_.SetBacklog(waiting, any ? std::max(absl::Now() - oldest, absl::ZeroDuration()) : absl::ZeroDuration());
}

}  // namespace userintent
