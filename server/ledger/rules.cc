// The rules of Decide, one function each.
#include <algorithm>

#include "server/ledger/decide_parts.h"

namespace userintent::ledger {
namespace {

bool Final(State state) { return state == State::kSucceeded || state == State::kFailed; }

}  // namespace

bool SameEmail(const Row& row, const BeginRequest& request) {
  return Same(row.email, request.current.email) ||
         std::any_of(request.older.begin(), request.older.end(),
                     [&row](const Fingerprints& prints) { return Same(row.email, prints.email); });
}

namespace rule {

bool MaySendFrom(State state) { return state == State::kReleased; }

std::optional<bool> SameContent(const Row& own, const BeginRequest& request) {
  bool known = own.key_id == request.current.key_id;
  if (known && Same(own.content, request.current.content)) return true;
  for (const Fingerprints& prints : request.older) {
    if (own.key_id != prints.key_id) continue;
    known = true;
    if (Same(own.content, prints.content)) return true;
  }
  if (known) return false;
  // Neither "same" nor "other" can be said honestly, and both would be acted upon.
  return std::nullopt;
}

bool IsBusy(const Row& other) { return other.record.state == State::kSending; }

bool IsUnresolved(const Row& other, const Key& asking) {
  if (other.record.state != State::kUnknown) return false;
  // A row superseded by the very id that asks is open again: that id is starting anew.
  return !other.record.superseded_by ||
         (other.record.key.caller == asking.caller && *other.record.superseded_by == asking.request_id);
}

bool MaySupersede(const Rules& rules, const Row& named, const BeginRequest& request) {
  return (named.record.key.caller == request.key.caller || request.may_supersede_others) && SameEmail(named, request) &&
         rules.is_unresolved(named, request.key);
}

bool CreatedBefore(const Row& found, const BeginRequest& request) {
  return found.record.state == State::kSucceeded && found.record.key != request.key;
}

bool MayTellAtOnce(const Key& created, const Key& asking) { return created.caller == asking.caller; }

bool FreesSuperseded(State ended) { return ended == State::kReleased; }

bool MayFinish(const Row& row, const FinishRequest& request) {
  if (row.owner != request.owner) return false;
  if (row.record.state == State::kSending) return true;
  // Another replica took the owner for dead and said UNKNOWN; the owner itself has ended nothing yet. What it heard is
  // the best evidence there is. Unless somebody has built on the row meanwhile, which a release would set free.
  const bool built_on = request.state == State::kReleased && row.record.superseded_by.has_value();
  return row.record.state == State::kUnknown && row.owner != 0 && !built_on;
}

Counters CountOf(const Record& record) {
  switch (record.state) {
    case State::kSending:
    case State::kFailed:  // whether a rejected attempt counts at Astra is not documented
      return {0, 1};
    case State::kSucceeded:
      return {1, 0};
    case State::kUnknown:
      return record.answer.confirmed ? Counters{1, 0} : Counters{0, 1};
    case State::kReleased:
      return {0, 0};
  }
  return {0, 1};
}

const char* WhyNotResolve(const Record& record, bool created) {
  switch (record.state) {
    case State::kUnknown:
      if (created || !record.answer.confirmed) return nullptr;
      return "Astra answered with a 2xx status, so it was created: find the intent's id at Astra and resolve it as "
             "created";
    case State::kSending:
      return "the request is SENDING, it still runs: wait until it ends";
    case State::kReleased:
      return "the request is RELEASED, nothing was created: its caller may repeat it";
    case State::kSucceeded:
      return "the request is SUCCEEDED: what is recorded is never changed";
    case State::kFailed:
      return "the request is FAILED: what is recorded is never changed";
  }
  return "the request is in a state that does not exist";
}

bool SpeaksOf(const Record& record, const Uuid& attempt_id) { return record.attempt_id == attempt_id; }

SettleVerdict JudgeProof(const Record& record, const SettleRequest& proof) {
  const bool created = proof.state == State::kSucceeded;
  switch (record.state) {
    case State::kSending:
      return SettleVerdict::kStillRuns;
    case State::kUnknown:
      if (proof.intent_of_another) return SettleVerdict::kConflict;
      if (proof.state == State::kUnknown) {
        return record.answer.confirmed ? SettleVerdict::kSaysSo : SettleVerdict::kCounted;
      }
      // A 2xx line came: something was made, whatever another answer says.
      return created || !record.answer.confirmed ? SettleVerdict::kSettled : SettleVerdict::kConflict;
    case State::kSucceeded:
      if (proof.state == State::kUnknown) return SettleVerdict::kSaysSo;  // it was made, yes
      return created && proof.answer.user_intent_id == record.answer.user_intent_id ? SettleVerdict::kSaysSo
                                                                                    : SettleVerdict::kConflict;
    case State::kFailed:
    case State::kReleased:  // both say that nothing was made
      return created || proof.state == State::kUnknown ? SettleVerdict::kConflict : SettleVerdict::kSaysSo;
  }
  return SettleVerdict::kConflict;
}

bool LeavesChain(State settled) { return settled == State::kReleased; }

bool MayPurge(const Record& record, const PurgeRequest& request) {
  if (record.state == State::kReleased) return record.updated < request.released_before;
  return Final(record.state) && record.updated < request.before;
}

bool IsNeededBy(const Record& other) { return !Final(other.state); }

}  // namespace rule

Budget BudgetOf(const Counters& counters) { return {counters.confirmed, counters.confirmed + counters.possible}; }

}  // namespace userintent::ledger
