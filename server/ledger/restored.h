// What a ledger knows of having been restored. A pure value.
#pragma once

#include <cstdint>

namespace userintent::ledger {

// That this ledger stands for a newer one that is lost: an operator said so at a start. Unix microseconds.
struct Restored {
  int64_t backup_of = 0;     // as of when it is, by the operator's word
  int64_t served_until = 0;  // the lost one's last known revision
  int64_t acknowledged_at = 0;
};

}  // namespace userintent::ledger
