#include <algorithm>
#include <utility>

#include "server/ledger/operation.h"

namespace userintent::ledger {

thread_local AnswersTogether* AnswersTogether::current_ = nullptr;

AnswersTogether::AnswersTogether() { current_ = this; }

void AnswersTogether::Add(Executor& executor, Task task) {
  const auto same = [&executor](const Bag& bag) { return bag.executor == &executor; };
  const auto at = std::find_if(bags_.begin(), bags_.end(), same);
  Bag& bag = at != bags_.end() ? *at : bags_.emplace_back(Bag{&executor, {}});
  bag.tasks.push_back(std::move(task));
}

AnswersTogether::~AnswersTogether() {
  current_ = nullptr;
  for (Bag& bag : bags_) {
    bag.executor->Post([tasks = std::move(bag.tasks)]() mutable {
      for (Task& task : tasks) task();
    });
  }
}

}  // namespace userintent::ledger
