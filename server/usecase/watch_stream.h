// WatchUserIntents: one stream, from its request to its end (contract section 7, decision 0012). No gRPC.
//
// First the present states, or what happened after the resume token, out of the ledger; then `synced`; then what the
// hub tells. Every state is read from the ledger when its turn comes, so that what is told was committed, and is what
// GetCreation would tell. One message is under way at a time, and a few states wait behind it.
//
// Any shard's thread; everything of a stream happens on that of `loop`.
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "server/base/loop.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/ledger.h"
#include "server/usecase/stream.h"
#include "server/usecase/watch_hub.h"
#include "server/usecase/watch_token.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

// A stream ends by itself after kLongestWatch, or after a connection's longest age where that is less, or up to a tenth
// earlier so that not all end at once: its caller comes again, perhaps on another connection, with a certificate that
// still holds. The listener lets connections live longer.
inline constexpr std::chrono::minutes kLongestWatch{10};
inline constexpr std::chrono::seconds kHeartbeatEvery{20};
// A message that is not taken for so long has no reader.
inline constexpr std::chrono::seconds kSlowestReader{60};

enum class WatchEvent { kChanged, kSynced, kHeartbeat, kReset };
enum class WatchEnd { kCallerLeft, kRefused, kDrain, kAge, kSlowReader, kLedger, kNotAllowed };
inline constexpr std::string_view kWatchEventNames[] = {"changed", "synced", "heartbeat", "reset"};
inline constexpr std::string_view kWatchEndNames[] = {"caller_left", "refused", "drain",      "age",
                                                      "slow_reader", "ledger",  "not_allowed"};

// Told about streams, for metrics. Called on shards' threads; must be thread-safe and must not block.
class WatchObserver {
 public:
  virtual ~WatchObserver() = default;
  virtual void OnWatchOpened() = 0;
  virtual void OnWatchEvent(WatchEvent event) = 0;
  // `opened`: OnWatchOpened told of it.
  virtual void OnWatchEnded(WatchEnd why, bool opened) = 0;
};

// All outlive the streams.
struct WatchDependencies {
  Loop& loop;
  ledger::Ledger& ledger;
  ledger::ChangeFeed& feed;
  WatchHub& hub;
  const WatchTokens& tokens;
  WatchObserver& observer;
  int attempt_limit = 3;
  SteadyClock::duration connection_age = kLongestWatch;
};

using WatchCall = StreamCall<v1::WatchUserIntentsRequest, v1::WatchUserIntentsResponse>;

std::shared_ptr<ServerStream> WatchUserIntents(const WatchDependencies& dependencies, WatchCall&& call);

}  // namespace userintent::usecase
