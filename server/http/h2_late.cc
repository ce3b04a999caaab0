// Late exchanges of an H2Client: which are listened to, and to what they give way.
#include <algorithm>

#include "server/http/exchange_text.h"
#include "server/http/h2_client.h"

namespace userintent::http {

void H2Client::ListenOn(H2Exchange& exchange) {
  exchange.connection->CountLate(1);
  exchanges_.MoveToLate(exchange, kNoAnswer);
}

void H2Client::EndLate(H2Exchange& exchange) {
  exchange.connection->Abandon(exchange);
  End(exchange, Exchange::End::kBroken, NotSentCause::kTimeout, kNoAnswer);
}

// Where a stream is all that the waiting ones lack, late ones end for them.
void H2Client::MakeWay(SteadyTime now) {
  if (exchanges_.late().empty() || exchanges_.waiting() == 0) return;
  const Need need = CountNeed(now);
  if (need.unplaced == 0 || need.connecting >= need.wanted) return;  // a connection is on its way for each
  const size_t late = exchanges_.CountLate();
  exchanges_.MakeWay(
      need.unplaced - need.connecting * need.each,
      [now](const H2Exchange& exchange) { return exchange.connection->Full(now); },
      [this](H2Exchange& exchange) { EndLate(exchange); });
  if (exchanges_.CountLate() < late) fresh_ = true;  // the resets leave with this turn's write
}

// Connections that only listen are beyond the cap, so they have one of their own.
void H2Client::LimitListening() {
  const auto most = 2 * static_cast<size_t>(std::max(settings_.options.max_connections, 1));
  const auto count = std::count_if(connections_.begin(), connections_.end(),
                                   [](const auto& connection) { return connection->OnlyListens(); });
  for (auto listening = static_cast<size_t>(count); listening > most; --listening) {
    H2Connection* oldest = nullptr;
    for (const H2Exchange& exchange : exchanges_.late()) {
      if (!exchange.connection->OnlyListens()) continue;
      oldest = exchange.connection;
      break;
    }
    exchanges_.MakeWay(
        exchanges_.CountLate(), [oldest](const H2Exchange& exchange) { return exchange.connection == oldest; },
        [this](H2Exchange& exchange) { EndLate(exchange); });
  }
}

std::optional<SteadyTime> H2Client::OldestLate() {
  if (exchanges_.late().empty()) return std::nullopt;
  return exchanges_.late().front().start;
}

void H2Client::EndOldestLate() {
  exchanges_.MakeWay(
      1, [](const H2Exchange&) { return true; }, [this](H2Exchange& exchange) { EndLate(exchange); });
  fresh_ = true;
}

const Stats& H2Client::stats() const {
  exchanges_.CountInto(stats_);
  return stats_;
}

}  // namespace userintent::http
