#include "server/usecase/creations.h"

#include <memory>
#include <utility>
#include <vector>

#include "server/usecase/creation.h"

namespace userintent::usecase {

CallerLeft Creations::Create(CreateCall&& call) {
  return [creation = Creation::Start(*this, std::move(call))] { return creation->CallerLeft(); };
}

void Creations::Drain() {
  for (Creation* creation : std::exchange(waiting_, {})) creation->GiveUpWaiting();
  for (Creation* creation : std::exchange(queued_, {})) creation->LeaveQueue(QueueEnd::kDrained);
}

void Creations::AnswerAll() {
  std::vector<std::shared_ptr<Creation>> all;
  for (Creation* creation : unanswered_) all.push_back(creation->shared_from_this());
  for (const std::shared_ptr<Creation>& creation : all) creation->AnswerNow();
}

}  // namespace userintent::usecase
