#include "server/ledger/key_filter.h"

#include <algorithm>
#include <bit>

namespace userintent::ledger {
namespace {

constexpr int kProbes = 6;
constexpr size_t kSmallestLayer = 131'072;

// The bits of a key, one after the other: `what(word, mask)` until it says false.
template <class What>
bool EachBit(size_t hash, size_t words, What what) {
  const uint64_t step = std::rotr(static_cast<uint64_t>(hash), 29) | 1;
  uint64_t at = hash;
  for (int i = 0; i < kProbes; ++i, at += step) {
    // The upper half of a product spreads `at` over all bits, whatever their number.
    const auto bit = static_cast<uint64_t>((static_cast<unsigned __int128>(at) * (words * 64)) >> 64);
    if (!what(bit / 64, uint64_t{1} << (bit % 64))) return false;
  }
  return true;
}

}  // namespace

void KeyFilter::Reset(size_t keys) {
  layers_.clear();
  layers_.emplace_back(std::max(keys, kSmallestLayer));
  keys_ = 0;
}

void KeyFilter::Add(size_t hash) {
  if (layers_.empty()) Reset(0);
  if (layers_.back().room == 0) layers_.emplace_back(std::max(keys_ / 2, kSmallestLayer));
  Layer& layer = layers_.back();
  --layer.room;
  ++keys_;
  EachBit(hash, layer.words.size(), [&layer](size_t word, uint64_t mask) {
    layer.words[word] |= mask;
    return true;
  });
}

bool KeyFilter::MayHold(size_t hash) const {
  return std::any_of(layers_.begin(), layers_.end(), [hash](const Layer& layer) {
    return EachBit(hash, layer.words.size(),
                   [&layer](size_t word, uint64_t mask) { return (layer.words[word] & mask) != 0; });
  });
}

size_t KeyFilter::bytes() const {
  size_t words = 0;
  for (const Layer& layer : layers_) words += layer.words.size();
  return words * sizeof(uint64_t);
}

}  // namespace userintent::ledger
