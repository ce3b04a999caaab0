#include "server/usecase/upstream_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace userintent::usecase {

void UpstreamQueue::Leave(SlotTaker* taker) {
  const SlotTaker::Holds held =
      taker == nullptr ? SlotTaker::Holds::kSlot : std::exchange(taker->holds_, SlotTaker::Holds::kNothing);
  if (held == SlotTaker::Holds::kWaits) return Remove(taker->line_, taker->at_);
  if (held == SlotTaker::Holds::kNothing) return;
  --slots_;
  if (waiting_ > 0) Grant();
}

std::list<SlotTaker::Line>::iterator UpstreamQueue::Fattest(const Account& account) {
  const auto fattest = std::ranges::max_element(lines_, {}, [](const Line& line) { return line.calls.size(); });
  if (fattest == lines_.end()) return fattest;
  const auto own = line_of_.find(account.get());
  const size_t has = own == line_of_.end() ? 0 : own->second->calls.size();
  return has + 1 < fattest->calls.size() ? fattest : lines_.end();
}

void UpstreamQueue::Wait(const std::shared_ptr<SlotTaker>& taker, const Account& account) {
  if (waiting_ >= most_) MakeRoom(account);
  const auto [own, is_new] = line_of_.try_emplace(account.get());
  if (is_new) own->second = lines_.insert(lines_.end(), Line{account, {}});
  taker->holds_ = SlotTaker::Holds::kWaits;
  taker->line_ = own->second;
  taker->at_ = own->second->calls.insert(own->second->calls.end(), taker);
  ++waiting_;
}

void UpstreamQueue::MakeRoom(const Account& account) {
  const std::list<Line>::iterator fattest = Fattest(account);
  if (fattest == lines_.end()) return;
  const auto place = std::prev(fattest->calls.end());
  const std::shared_ptr<SlotTaker> last = place->lock();
  Remove(fattest, place);
  if (!last) return;
  last->holds_ = SlotTaker::Holds::kNothing;
  last->OnQueueNews();
}

void UpstreamQueue::Remove(std::list<Line>::iterator line, std::list<std::weak_ptr<SlotTaker>>::iterator place) {
  line->calls.erase(place);
  --waiting_;
  if (!line->calls.empty()) return;
  line_of_.erase(line->account.get());
  lines_.erase(line);
}

void UpstreamQueue::Grant() {
  while (waiting_ > 0 && slots_ < limit_.limit()) {
    const std::list<Line>::iterator line = lines_.begin();
    lines_.splice(lines_.end(), lines_, line);  // the next turn is another caller's
    const std::shared_ptr<SlotTaker> next = line->calls.front().lock();
    Remove(line, line->calls.begin());
    if (!next) continue;  // gone with its loop
    next->holds_ = SlotTaker::Holds::kSlot;
    ++slots_;
    next->OnQueueNews();
  }
}

}  // namespace userintent::usecase
