// ledger::KeyFilter: says of a key that it was surely never added, or that it may have been (a Bloom filter).
//
// 16 bits and 6 probes a key: of a million keys that were never added some 400 "may have been". It only grows, and is
// never stored: a bit that were lost would make a known key a new one. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace userintent::ledger {

class KeyFilter {
 public:
  // Empties it, with room for so many keys. Beyond that it makes room by itself, in steps.
  void Reset(size_t keys);
  void Add(size_t hash);
  bool MayHold(size_t hash) const;
  size_t bytes() const;

 private:
  struct Layer {
    explicit Layer(size_t keys) : words(keys / 4 + 1), room(keys) {}
    std::vector<uint64_t> words;
    size_t room;
  };
  std::vector<Layer> layers_;  // keys are added to the last one
  size_t keys_ = 0;
};

}  // namespace userintent::ledger
