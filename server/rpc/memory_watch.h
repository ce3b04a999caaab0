// MemoryWatch: whether the process's memory is above a mark, and what is done about it: memory that is free but not
// given back goes back, and then the connections that hold most are ended (connection_watch.h). The kernel would end
// the whole process, and with it everybody's calls.
//
// Belongs to one thread, the acceptor's, which takes nobody in while memory is short.
#pragma once

#include <cstdint>

#include "server/base/loop.h"

namespace userintent::rpc {

// Eight tenths of the memory that this container may have, in bytes; 0: it has no limit of its own. The rest is for the
// kernel's buffers, the pages of the ledger, and what comes in before the next look.
int64_t DefaultMemoryMark();

class MemoryWatch {
 public:
  // In bytes of resident memory; 0: memory is never short.
  explicit MemoryWatch(int64_t mark);
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  bool on() const { return mark_ > 0; }

  // Looks, acts, and says whether memory is short. Some microseconds.
  bool Look(SteadyTime now);

 private:
  int64_t Resident() const;

  const int64_t mark_;
  int statm_ = -1;
  SteadyTime next_purge_{};
};

}  // namespace userintent::rpc
