// Server: the composition root. Owns every part and says in which order they are made, started, stopped and destroyed.
// The parts choose between concrete classes themselves: open_ledger.h the ledger, server/http/auto_client.h the HTTP
// client.
//
// Used from one thread (main's): Start, then HouseKeep every few hundred milliseconds, then Drain once. Destruction
// ends the side doors, the listener, the operators' socket and the shards' threads, in this order; then the parts go:
// the ledger before the shards, whose inboxes its last answers need, and last what all of them used.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/config/load.h"

namespace userintent {

class Server {
 public:
  // Everything is opened and bound, and calls are answered, when this returns OK. Otherwise the status says in one
  // line, beginning with the flag to change, why not; nothing is left running.
  static absl::StatusOr<std::unique_ptr<Server>> Start(config::Loaded loaded);

  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Follows the ledger with the health state, and with the credentials and the upstream's authorities their files.
  // Cheap; never blocks for long.
  void HouseKeep();

  // SIGHUP: reads those files now instead of at the next poll.
  void ReloadFiles();

  // SIGTERM: health says NOT_SERVING at once, and calls are admitted for --lame_duck more. Then it refuses new
  // creations (DRAINING) while repeats are still answered, waits until every exchange has ended and is recorded, and
  // shuts down; all that within --drain_timeout. False: the time was not enough, and rows are left SENDING, which the
  // next start turns into UNKNOWN.
  bool Drain();

  // Where it listens, with the ports that were bound; the second one empty: there is no /metrics.
  net::HostPort address() const;
  net::HostPort metrics_address() const;

 private:
  struct Parts;
  Server();

  void LameDuck();

  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent
