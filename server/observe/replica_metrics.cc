#include "server/observe/replica_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include "server/observe/metric_makers.h"

namespace userintent::observe {

using prometheus::Gauge;
using prometheus::Registry;

struct ReplicaMetrics::Parts {
  Gauge* well = nullptr;
  Gauge* replicas = nullptr;
  Gauge* unswept = nullptr;
  Gauge* standbys = nullptr;
  Gauge* lease_left = nullptr;
  Gauge* commit_waits = nullptr;
  Gauge* oldest_writer = nullptr;
  Gauge* in_doubt = nullptr;
  prometheus::Counter* swept = nullptr;
};

ReplicaMetrics::ReplicaMetrics(Registry& registry) : parts_(std::make_unique<Parts>()) {
  Parts& parts = *parts_;
  // All of them are about a ledger in PostgreSQL, and say nothing of another one.
  parts.well = MakeGauge(registry, "userintent_replica_well",
                         "Of a ledger in PostgreSQL. 1: the lease holds, the database keeps the promise and no commit "
                         "hangs; 0: nothing new starts.");
  parts.replicas = MakeGauge(registry, "userintent_replicas", "Replicas that beat, this one among them.");
  parts.unswept = MakeGauge(registry, "userintent_replicas_unswept",
                            "Replicas that have ended and whose requests may wait to become unknown.");
  parts.standbys = MakeGauge(registry, "userintent_ledger_standbys", "Standbys of the database that are in sync.");
  parts.lease_left = MakeGauge(registry, "userintent_replica_lease_seconds",
                               "How long requests may still begin without another beat; below 0: none may.");
  parts.commit_waits = MakeGauge(registry, "userintent_ledger_commit_waits_seconds",
                                 "For how long the answer to a commit is waited for.");
  parts.oldest_writer =
      MakeGauge(registry, "userintent_ledger_oldest_transaction_seconds",
                "Age of the oldest open transaction of the database server that has written; it holds "
                "back what watchers are told.");
  parts.in_doubt = MakeGauge(registry, "userintent_ledger_in_doubt",
                             "Requests whose begin was sent to the database and was not answered; nothing new starts "
                             "here until it is known what became of them.");
  parts.swept = MakeCounter(registry, "userintent_ledger_swept_total",
                            "Requests of replicas that are gone which this one has recorded as unknown.");
  parts.well->Set(1);
}

ReplicaMetrics::~ReplicaMetrics() = default;

void ReplicaMetrics::Show(const ReplicaReport& report) noexcept {
  parts_->well->Set(report.well ? 1 : 0);
  parts_->replicas->Set(report.replicas);
  parts_->unswept->Set(report.unswept);
  parts_->standbys->Set(report.standbys);
  parts_->lease_left->Set(report.lease_left);
  parts_->commit_waits->Set(report.commit_waits);
  parts_->oldest_writer->Set(report.oldest_writer);
  parts_->in_doubt->Set(report.in_doubt);
}

void ReplicaMetrics::CountSwept(int64_t rows) noexcept { parts_->swept->Increment(static_cast<double>(rows)); }

}  // namespace userintent::observe
