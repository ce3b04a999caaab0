// Calls wait here for the end of requests that other processes run, and somebody has seen that these have ended.
#include <utility>
#include <vector>

#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class WakeEndedOperation final : public Operation {
 public:
  explicit WakeEndedOperation(std::vector<Key> keys) {
    requests_.reserve(keys.size());
    for (Key& key : keys) requests_.push_back({std::move(key), {}});
  }

  void AddLookups(std::vector<Lookup>& lookups) const override {
    for (const GetRequest& request : requests_) lookups.push_back(LookupFor(request));
  }
  absl::Status Apply(Workplace& at) override {
    ended_.clear();
    for (const GetRequest& request : requests_) {
      absl::StatusOr<GetAnswer> answer = Execute(at.store, request);
      if (!answer.ok()) return answer.status();
      if (answer->record && answer->record->state != State::kSending) ended_.push_back(*std::move(answer));
    }
    return absl::OkStatus();
  }
  // They are seen again.
  void ApplyReadOnly(Workplace&) override { ended_.clear(); }
  void Deliver(Workplace& at) override {
    for (const GetAnswer& answer : ended_) at.joins.Wake(answer.record->key, *answer.record, answer.budget);
  }
  bool GiveUp() override { return true; }
  bool MayWrite() const override { return false; }

 private:
  std::vector<GetRequest> requests_;
  std::vector<GetAnswer> ended_;
};

}  // namespace

std::unique_ptr<Operation> NewWakeEnded(std::vector<Key> keys) {
  return std::make_unique<WakeEndedOperation>(std::move(keys));
}

}  // namespace userintent::ledger
