// SettleObserver: told of unknown outcomes that became known after all, whichever way, for logs and metrics.
#pragma once

#include <iterator>
#include <string_view>

#include "server/ledger/ledger.h"

namespace userintent::usecase {

// What the proof was (contract section 7).
enum class SettleWay { kLateAnswer, kWebhook, kOperator };

// For logs and metrics; indexed by SettleWay.
inline constexpr std::string_view kSettleWays[] = {"late_answer", "webhook", "operator"};
static_assert(std::size(kSettleWays) == static_cast<size_t>(SettleWay::kOperator) + 1);

class SettleObserver {
 public:
  virtual ~SettleObserver() = default;

  // The ledger has heard a proof and answered this: kSettled, kSaysSo, kConflict or kNotFound; of operators kSettled
  // only. Called on shards' threads and the operators'; must be thread-safe and must not block.
  virtual void OnSettled(SettleWay way, const ledger::Key& key, const ledger::SettleAnswer& answer) = 0;
};

}  // namespace userintent::usecase
