#include "server/postgres/keeper.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "server/ledger/execute.h"
#include "server/postgres/change_log.h"

namespace userintent::postgres {

using ledger::GroupCommit;

// A process whose lease is over may end what runs and begins nothing; nor does what runs send another POST.
void Keeper::Look(GroupCommit& commit, Time now) {
  const ledger::Owner mine = member_.owner();
  const bool holds = mine.epoch != 0 && mine.lease->Holds() && member_.well();
  commit.set_admit(holds);
  commit.set_resend(holds);
  Sweep(commit, now);
}

// Rows of replicas that are gone: nobody knows whether they were sent.
void Keeper::Sweep(GroupCommit& commit, Time now) {
  if (now < sweep_at_ || !commit.healthy()) return;
  sweep_at_ = now + absl::ToChronoMilliseconds(options_.sweep);
  if (member_.gone().empty()) return;
  size_t recovered = 0;
  const absl::Status s = commit.Transact([&]() -> absl::Status {
    const absl::StatusOr<size_t> some =
        ledger::Execute(store_, ledger::RecoverRequest{options_.unknown_reason, options_.now(), options_.at_once});
    if (!some.ok()) return some.status();
    recovered = *some;
    return absl::OkStatus();
  });
  if (!s.ok()) {
    options_.warn(absl::StrCat(std::string(s.message()), "; rows of a replica that is gone wait"));
  } else if (recovered != 0) {
    options_.on_recovered(recovered);
    sweep_at_ = now;
  }
}

void Keeper::WhenIdle(GroupCommit& commit, Time now) {
  // One replica forgets for all.
  if (member_.share().rank != 0 || !member_.well()) return;
  const auto next = [this, now](bool more) {
    return now + absl::ToChronoMilliseconds(more ? options_.interval : options_.pause);
  };
  if (now >= prune_at_) prune_at_ = next(PruneLog());
  if (now >= forget_at_) forget_at_ = next(ForgetSomeWebhooks());
  if (now >= purge_at_) purge_at_ = next(PurgeSome(commit));
}

void Keeper::AfterTurn(const GroupCommit& commit) {
  healthy_.store(commit.healthy(), std::memory_order_release);
  if (std::exchange(told_healthy_, commit.healthy()) == commit.healthy()) return;
  options_.warn(commit.healthy()
                    ? std::string("ledger: can be written again")
                    : absl::StrCat("ledger: ", std::string(commit.last_error().message()), "; nothing new starts, ",
                                   commit.waiting_outcomes(), " outcomes wait for the database"));
}

void Keeper::AtEnd(GroupCommit& commit) {
  clean_.store(commit.healthy() && commit.waiting_outcomes() == 0, std::memory_order_release);
  if (commit.waiting_outcomes() == 0) return;
  options_.warn(absl::StrCat("ledger: ", commit.waiting_outcomes(),
                             " outcomes could not be written; their requests become unknown"));
}

ledger::Housekeeper::Time Keeper::NextDue(bool healthy) const {
  if (!healthy) return std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(options_.interval);
  const Time look = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(options_.sweep);
  if (member_.share().rank != 0) return look;
  return std::min(
      {look, std::max(purge_at_, sweep_at_), std::max(prune_at_, sweep_at_), std::max(forget_at_, sweep_at_)});
}

// False: all that is old was looked at.
bool Keeper::PurgeSome(GroupCommit& commit) {
  const auto before = [now = options_.now()](absl::Duration kept) {
    return kept > absl::ZeroDuration() ? now - kept : absl::InfinitePast();
  };
  if (options_.retention <= absl::ZeroDuration() && options_.released_retention <= absl::ZeroDuration()) return false;
  ledger::PurgeAnswer purged;
  const absl::Status s = commit.Transact([&]() -> absl::Status {
    absl::StatusOr<ledger::PurgeAnswer> some = ledger::Execute(
        store_,
        ledger::PurgeRequest{before(options_.retention), options_.at_once, before(options_.released_retention)});
    if (some.ok()) purged = *some;
    return some.status();
  });
  if (!s.ok()) {
    options_.warn(absl::StrCat(std::string(s.message()), "; old rows stay for now"));
    return false;
  }
  if (purged.purged != 0) options_.on_purge(purged.purged);
  return purged.seen != 0;
}

bool Keeper::PruneLog() {
  const absl::StatusOr<Connection*> connection = store_.Connected();
  if (!connection.ok()) return false;
  constexpr int64_t kAtOnce = 5'000;
  const absl::StatusOr<int64_t> pruned = postgres::PruneLog(**connection, options_.watch_history, kAtOnce);
  return pruned.ok() && *pruned == kAtOnce;
}

bool Keeper::ForgetSomeWebhooks() {
  if (!store_.Connected().ok()) return false;
  const absl::StatusOr<size_t> forgotten =
      store_.webhooks().ForgetWebhooks(options_.now() - ledger::kWebhooksKept, options_.at_once);
  return forgotten.ok() && *forgotten == options_.at_once;
}

}  // namespace userintent::postgres
