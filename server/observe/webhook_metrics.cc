#include "server/observe/webhook_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "server/observe/metric_makers.h"

namespace userintent::observe {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Registry;

// Seconds. An answer is due within 50 ms; Astra gives up after 10 s.
const Histogram::BucketBoundaries kAnswerBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10};

}  // namespace

struct WebhookMetrics::Parts {
  std::vector<Counter*> answers;                  // by answer
  std::vector<std::vector<Counter*>> signatures;  // by key and form
  std::vector<Counter*> cuts;                     // by cause
  std::vector<Counter*> ended;                    // by result
  Counter* settled = nullptr;
  Histogram* answer_seconds = nullptr;
  Gauge* last_received = nullptr;
  Gauge* connections = nullptr;
  Gauge* unprocessed = nullptr;
  Gauge* oldest = nullptr;
};

WebhookMetrics::WebhookMetrics(Registry& registry, const WebhookLabels& labels) : parts_(std::make_unique<Parts>()) {
  Parts& parts = *parts_;
  parts.answers = MakeCounters(registry, "userintent_webhooks_total", "Requests at the webhook door by their answer.",
                               "result", labels.answers);
  Family<Counter>& signatures = BuildCounter()
                                    .Name("userintent_webhook_signature_total")
                                    .Help("Webhooks with a good signature by the key and the text that were signed.")
                                    .Register(registry);
  for (const std::string_view key : labels.keys) {
    std::vector<Counter*>& forms = parts.signatures.emplace_back();
    for (const std::string_view form : labels.forms) {
      forms.push_back(&signatures.Add({{"key", std::string(key)}, {"form", std::string(form)}}));
    }
  }
  parts.cuts = MakeCounters(registry, "userintent_webhook_connections_closed_total",
                            "Connections that the webhook door closed by itself, by the limit that was reached.",
                            "reason", labels.cuts);
  parts.ended = MakeCounters(registry, "userintent_webhook_ended_total", "Webhooks that are done by what came of them.",
                             "result", labels.results);
  parts.settled = &BuildCounter()
                       .Name("userintent_webhook_settled_total")
                       .Help("Unknown outcomes that a webhook settled.")
                       .Register(registry)
                       .Add({});
  parts.answer_seconds = &BuildHistogram()
                              .Name("userintent_webhook_answer_seconds")
                              .Help("Time from the start of a request at the webhook door to its answer.")
                              .Register(registry)
                              .Add({}, kAnswerBuckets);
  parts.last_received = MakeGauge(registry, "userintent_webhook_last_received_timestamp_seconds",
                                  "When the last webhook with a good signature was stored, in Unix time; 0: none yet.");
  parts.connections = MakeGauge(registry, "userintent_webhook_connections", "Open connections of the webhook door.");
  parts.unprocessed = MakeGauge(registry, "userintent_webhook_unprocessed", "Webhooks of which nothing has come yet.");
  parts.oldest = MakeGauge(registry, "userintent_webhook_oldest_unprocessed_seconds",
                           "How long the oldest of them has waited; 0: none waits.");
}

WebhookMetrics::~WebhookMetrics() = default;

void WebhookMetrics::RecordAnswer(size_t answer, absl::Duration took) noexcept {
  parts_->answers[answer]->Increment();
  try {
    parts_->answer_seconds->Observe(absl::ToDoubleSeconds(took));
  } catch (...) {  // a lost count must not end a request
  }
}

void WebhookMetrics::SetLastReceived(absl::Time time) noexcept {
  parts_->last_received->Set(static_cast<double>(absl::ToUnixMillis(time)) / 1e3);
}

void WebhookMetrics::CountSignature(size_t key, size_t form) noexcept { parts_->signatures[key][form]->Increment(); }

void WebhookMetrics::CountCut(size_t why) noexcept { parts_->cuts[why]->Increment(); }

void WebhookMetrics::SetConnections(size_t open) noexcept { parts_->connections->Set(static_cast<double>(open)); }

void WebhookMetrics::CountEnded(size_t result) noexcept { parts_->ended[result]->Increment(); }

void WebhookMetrics::CountSettled() noexcept { parts_->settled->Increment(); }

void WebhookMetrics::SetBacklog(size_t waiting, absl::Duration oldest) noexcept {
  parts_->unprocessed->Set(static_cast<double>(waiting));
  parts_->oldest->Set(absl::ToDoubleSeconds(oldest));
}

}  // namespace userintent::observe
