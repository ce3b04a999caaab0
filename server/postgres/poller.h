// postgres::Poller: something that asks the database from time to time what other replicas did.
//
// The member's thread owns connection C and calls every Poller there, one after the other; no other thread does.
#pragma once

#include "absl/status/statusor.h"
#include "server/base/lease.h"

namespace userintent::postgres {

class Connection;

class Poller {
 public:
  virtual ~Poller() = default;

  // Asks what is due at `now`, and returns when the next turn is wanted, at the latest; an earlier one does no harm. At
  // most one round trip, mostly none. A failure is the connection's; after it the poller goes on where it stood, with
  // whatever connection it is given next.
  virtual absl::StatusOr<BootNanos> Turn(Connection& connection, BootNanos now) = 0;
};

}  // namespace userintent::postgres
