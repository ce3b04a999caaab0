#include "server/policy/account.h"

#include <algorithm>
#include <utility>

namespace userintent::policy {
namespace {

// While there is no room, idle accounts are looked for at most so often.
constexpr std::chrono::seconds kLookEvery{1};

constexpr Rate kAny{1, 1};  // of a bucket that limits nothing yet

}  // namespace

Limits LimitsOf(const Rule* rule) {
  Limits limits;
  if (rule == nullptr) return limits;
  limits.create = rule->create_rate;
  limits.read = rule->read_rate;
  limits.probe = rule->probe_rate.value_or(kDefaultProbeRate);
  limits.max_in_flight = rule->max_in_flight.value_or(limits.max_in_flight);
  limits.enforce = rule->enforce;
  return limits;
}

OverLimit OverLimitCounters::Read() const {
  OverLimit all;
  for (size_t i = 0; i < kLimitCount; ++i) {
    all.refused[i] = refused_[i].load(std::memory_order_relaxed);
    all.passed[i] = passed_[i].load(std::memory_order_relaxed);
  }
  return all;
}

// ---- CallerAccount ----

CallerAccount::CallerAccount(const Limits& limits, OverLimitCounters* counters)
    : counters_(counters),
      create_{TokenBucket(limits.create.value_or(kAny)), limits.create.has_value()},
      read_{TokenBucket(limits.read.value_or(kAny)), limits.read.has_value()},
      probe_{TokenBucket(limits.probe), true},
      max_in_flight_(limits.max_in_flight),
      enforce_(limits.enforce) {}

CallerAccount::Bucket& CallerAccount::BucketOf(Limit limit) {
  return limit == Limit::kCreateRate ? create_ : limit == Limit::kReadRate ? read_ : probe_;
}

std::optional<absl::Duration> CallerAccount::Take(SteadyTime now, Limit limit, bool take) {
  const MutexLock lock(mutex_);
  Bucket& bucket = BucketOf(limit);
  if (!bucket.limited) return std::nullopt;
  const std::optional<absl::Duration> wait = take ? bucket.tokens.Take(now) : bucket.tokens.Peek(now);
  if (!wait) return std::nullopt;
  if (take || enforce_) CountOver(limit, enforce_);  // a look that passes is followed by the call itself
  return enforce_ ? wait : std::nullopt;
}

void CallerAccount::GiveBackCreate() {
  const MutexLock lock(mutex_);
  if (create_.limited) create_.tokens.GiveBack();
}

bool CallerAccount::TellOfProbes(SteadyTime now) {
  constexpr std::chrono::minutes kTellEvery{1};
  const MutexLock lock(mutex_);
  if (told_of_probes_ && now < *told_of_probes_ + kTellEvery) return false;
  told_of_probes_ = now;
  return true;
}

bool CallerAccount::MayEnter() {
  const MutexLock lock(mutex_);
  if (in_flight() < max_in_flight_) return true;
  CountOver(Limit::kInFlight, enforce_);
  return !enforce_;
}

void CallerAccount::SetLimits(const Limits& limits, SteadyTime now) {
  const MutexLock lock(mutex_);
  const auto set = [now](Bucket& bucket, const std::optional<Rate>& rate) {
    bucket.limited = rate.has_value();
    if (rate) bucket.tokens.Change(*rate, now);
  };
  set(create_, limits.create);
  set(read_, limits.read);
  set(probe_, limits.probe);
  max_in_flight_ = limits.max_in_flight;
  enforce_ = limits.enforce;
}

bool CallerAccount::Idle(SteadyTime now) const {
  const MutexLock lock(mutex_);
  return in_flight() == 0 && create_.tokens.Full(now) && read_.tokens.Full(now) && probe_.tokens.Full(now);
}

// ---- Accounts ----

std::shared_ptr<CallerAccount> Accounts::Of(const std::string& caller, const Rule* rule, SteadyTime now) {
  const Limits limits = LimitsOf(rule);
  const MutexLock lock(mutex_);
  auto found = accounts_.find(caller);
  if (found == accounts_.end()) {
    if (MakeRoom(now)) {
      found = accounts_.emplace(caller, std::make_shared<CallerAccount>(limits, &counters_)).first;
      return found->second;
    }
    const auto [shared, is_new] = shared_.try_emplace(rule == nullptr ? std::string() : rule->name);
    if (is_new) shared->second = std::make_shared<CallerAccount>(limits, &counters_);
    found = shared;
  }
  found->second->SetLimits(limits, now);
  return found->second;
}

// True: one more account fits.
bool Accounts::MakeRoom(SteadyTime now) {
  if (accounts_.size() < std::min(look_at_, most_)) return true;
  if (accounts_.size() >= most_ && now < looked_at_ + kLookEvery) return false;
  looked_at_ = now;
  // Nobody else holds it, and nobody can get at it but under the lock: what its last holder did is seen here, because
  // both held the account's own lock.
  const auto forgotten = [now](const Map::value_type& one) {
    return one.second.use_count() == 1 && one.second->Idle(now);
  };
  absl::erase_if(accounts_, forgotten);
  absl::erase_if(shared_, forgotten);
  look_at_ = std::max<size_t>(1024, 2 * accounts_.size());
  return accounts_.size() < most_;
}

size_t Accounts::size() const {
  const MutexLock lock(mutex_);
  return accounts_.size() + shared_.size();
}

}  // namespace userintent::policy
