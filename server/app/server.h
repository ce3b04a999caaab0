// Server: the composition root. Owns every part and chooses between concrete classes: which ledger, which metrics.
// Which HTTP client is chosen by server/http/new_client.h.
//
// Used from one thread (main's): Start, then HouseKeep every few hundred milliseconds, then Drain once. Destruction
// ends the HTTP endpoint, the operators' socket, the listener and the shards' threads, in this order; then the parts
// go: the ledger before the shards, whose inboxes its last answers need, and last what all of them used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/config/load.h"

namespace userintent {

class Server {
 public:
  // Everything is checked, opened and bound, and calls are answered, when this returns OK. Otherwise the status says in
  // one line, beginning with the flag to mend, why not; nothing is left running.
  static absl::StatusOr<std::unique_ptr<Server>> Start(config::Loaded loaded);

  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Follows the ledger with the health state, and with the credentials and the upstream's authorities their files.
  // Cheap; never blocks for long.
  void HouseKeep();

  // SIGHUP: looks at those files now instead of at the next poll.
  void ReloadFiles();

  // SIGTERM: refuses new creations (DRAINING) while repeats are still answered, waits until every exchange has ended
  // and is recorded, at most --drain_timeout, and shuts down. False: the time was not enough, and rows are left
  // SENDING, which the next start turns into UNKNOWN.
  bool Drain();

 private:
  struct Parts;
  static std::string WhyNotServing(const Parts& p);
  static void OpenProbes(Parts& p, const config::HostPort& bound);
  static void CountConnections(Parts& p);
  static void RefreshFiles(Parts& p);
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

// Asks a running server, found by the same settings, whether it serves. Blocks for at most a few seconds.
absl::Status ProbeHealth(const config::Settings& settings);

}  // namespace userintent
