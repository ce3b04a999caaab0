// ChangeFanout: the ledger tells one listener of its changes; this one passes them on to several.
//
// Add() before the ledger's first call; afterwards it never changes, and OnChanges runs on the ledger's thread. It
// outlives the ledger, and the listeners outlive it.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "server/ledger/change_feed.h"

namespace userintent::usecase {

class ChangeFanout final : public ledger::ChangeListener {
 public:
  void Add(ledger::ChangeListener& listener) { listeners_.push_back(&listener); }

  void OnChanges(absl::Span<const ledger::Change> changes) override {
    for (ledger::ChangeListener* const listener : listeners_) listener->OnChanges(changes);
  }

 private:
  std::vector<ledger::ChangeListener*> listeners_;
};

}  // namespace userintent::usecase
