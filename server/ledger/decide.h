// ledger::Decide: the whole state machine of a row, and every decision about it. Facts in, answer and changes out: no
// store, no status, no clock, nothing to call. The rules exist here once, for every store.
//
//   (none) --Begin--> SENDING --Finish--> SUCCEEDED | FAILED | UNKNOWN       for ever
//                     SENDING --Finish--> RELEASED --Begin--> SENDING     proof of "not sent" or "refused unprocessed"
//                     SENDING --Recover-> UNKNOWN                         the process died, or was taken for dead:
//                     UNKNOWN --Finish--> SUCCEEDED | FAILED | RELEASED   it was not, and its call ended after all
//                     UNKNOWN --Settle--> SUCCEEDED | FAILED | RELEASED   proof from Astra
//                     UNKNOWN --Resolve-> SUCCEEDED | FAILED              an operator, with evidence
//                               SUCCEEDED | FAILED --Purge--> (none)      only where a retention is set
//                                         RELEASED --Purge--> (none)      its id is free in any case
//
// A request is decided with the View that its Lookup asked for (LookupFor, beside each Decide). Thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

// What an operator found out about a row whose outcome was not known.
struct ResolveRequest {
  Key key;
  std::optional<std::string> created;  // the intent's id, 1-256 bytes; nothing: it was not created
  int not_created_reason = 0;          // of a row that ends as FAILED
  std::string actor;                   // who says so; 1-128 bytes, printable ASCII
  std::string evidence;                // how that is known; 1-1024 bytes, printable ASCII, no "@"
  absl::Time now;
};

struct ResolveAnswer {
  bool changed = false;  // false: the row says so already, and nothing was written
  Record record;
  Budget budget;
};

// What an operator may say became of a row, by the rule that judges it when he does. For people.
struct Outcomes {
  std::string accepted;  // "created, with the intent's id" and "not created", as far as they are accepted
  std::string why_not;   // why the others are not
};

struct NextAttemptRequest {
  Key key;
  Uuid attempt_id{};
  Sent sent_so_far = Sent::kNo;
  absl::Time now;
  int64_t owner = 0;  // of the process that asks, at this moment
};

// By the key; or, where an intent is given, by the key's caller and the intent.
struct GetRequest {
  Key key;
  std::string intent;
};

// See Ledger::RecordReading.
struct ReadingRequest {
  Key key;
  Reading reading;
};

// Turns up to `limit` SENDING rows into UNKNOWN with this reason: the calls that owned them are gone, and whether they
// sent cannot be known.
struct RecoverRequest {
  int reason = 0;
  absl::Time now;
  size_t limit = 1000;
};

// Looks at the next `limit` old rows and forgets those that ended before `before`, or were released before
// `released_before`, and that no open row refers to.
struct PurgeRequest {
  absl::Time before;
  size_t limit = 200;
  absl::Time released_before = absl::InfinitePast();
};

struct PurgeAnswer {
  size_t seen = 0;  // 0: every old row was looked at
  size_t purged = 0;
};

// The rules that hold the promise, one function each. The model checker replaces each of them in turn by a wrong one,
// and must notice.
struct Rules;
namespace rule {
bool MaySendFrom(State state);
// Nothing: it cannot be told, because the row is under a key that was not given.
std::optional<bool> SameContent(const Row& own, const BeginRequest& request);
bool IsBusy(const Row& other);
bool IsUnresolved(const Row& other, const Key& asking);
bool MaySupersede(const Rules& rules, const Row& named, const BeginRequest& request);
bool CreatedBefore(const Row& found, const BeginRequest& request);
bool MayTellAtOnce(const Key& created, const Key& asking);
bool FreesSuperseded(State ended);
bool MayFinish(const Row& row, const FinishRequest& request);
Counters CountOf(const Record& record);  // what one row adds to its address
// Null: it may. Otherwise why not, for the operator.
const char* WhyNotResolve(const Record& record, bool created);
bool SpeaksOf(const Record& record, const Uuid& attempt_id);  // the proof about this POST, of this row
SettleVerdict JudgeProof(const Record& record, const SettleRequest& proof);
bool LeavesChain(State settled);  // no longer replaces another row, and is no longer replaced by one
bool MayPurge(const Record& record, const PurgeRequest& request);
bool IsNeededBy(const Record& other);  // an old row, by one that it superseded or that superseded it
}  // namespace rule

struct Rules {
  bool (*may_send_from)(State) = rule::MaySendFrom;
  std::optional<bool> (*same_content)(const Row&, const BeginRequest&) = rule::SameContent;
  bool (*is_busy)(const Row&) = rule::IsBusy;
  bool (*is_unresolved)(const Row&, const Key&) = rule::IsUnresolved;
  bool (*may_supersede)(const Rules&, const Row&, const BeginRequest&) = rule::MaySupersede;
  bool (*created_before)(const Row&, const BeginRequest&) = rule::CreatedBefore;
  bool (*may_tell_at_once)(const Key&, const Key&) = rule::MayTellAtOnce;
  bool (*frees_superseded)(State) = rule::FreesSuperseded;
  bool (*may_finish)(const Row&, const FinishRequest&) = rule::MayFinish;
  State state_after_crash = State::kUnknown;
  Counters (*count_of)(const Record&) = rule::CountOf;
  const char* (*why_not_resolve)(const Record&, bool) = rule::WhyNotResolve;
  State state_if_not_created = State::kFailed;
  bool (*speaks_of)(const Record&, const Uuid&) = rule::SpeaksOf;
  SettleVerdict (*judge_proof)(const Record&, const SettleRequest&) = rule::JudgeProof;
  bool (*leaves_chain)(State) = rule::LeavesChain;
  bool (*may_purge)(const Record&, const PurgeRequest&) = rule::MayPurge;
  bool (*is_needed_by)(const Record&) = rule::IsNeededBy;
};
inline constexpr Rules kRules{};

// Who is to blame when a request is not decided; nothing is changed then.
enum class Refusal : uint8_t {
  kNone,
  kNotFound,   // no such row
  kState,      // the row is in another state than the request needs
  kInvalid,    // the request itself
  kUnknowable  // the row cannot be judged
};

template <typename Answer>
struct Decision {
  Answer answer;
  Changes changes;
  Refusal refusal = Refusal::kNone;
  std::string why;  // of a refusal; one line, without personal data
  // Begin: the answer holds if the admission agrees. Otherwise decide again with `admitted` false.
  bool asks_admission = false;
};

struct Nothing {};

// Never waits: a row that is SENDING answers kInProgress, whatever may_join says. With may_start false nothing is
// changed, not even re-keyed.
Lookup LookupFor(const BeginRequest& request, const Rules& rules = kRules);
Decision<BeginAnswer> Decide(const View& view, const BeginRequest& request, const Rules& rules = kRules,
                             bool admitted = true);

// `committed` is set; it is true once the caller's transaction is committed.
Lookup LookupFor(const FinishRequest& request, const Rules& rules = kRules);
Decision<FinishAnswer> Decide(View&& view, const FinishRequest& request, const Rules& rules = kRules);

Lookup LookupFor(const NextAttemptRequest& request);
Decision<Nothing> Decide(View&& view, const NextAttemptRequest& request);

Lookup LookupFor(const GetRequest& request);
GetAnswer Decide(View&& view, const GetRequest& request);

Lookup LookupFor(const ReadingRequest& request);
Decision<Nothing> Decide(View&& view, const ReadingRequest& request);

// Refused with kNotFound and kInvalid where SettleVerdict is kNotFound. A conflict is no refusal: it leaves a mark.
Lookup LookupFor(const SettleRequest& request, const Rules& rules = kRules);
Decision<SettleAnswer> Decide(View&& view, const SettleRequest& request, const Rules& rules = kRules);

// A refusal's text is meant for the operator.
Lookup LookupFor(const ResolveRequest& request);
Decision<ResolveAnswer> Decide(View&& view, const ResolveRequest& request, const Rules& rules = kRules);
Outcomes AcceptedOutcomes(const Record& record, const Rules& rules = kRules);

// Of the rows that are SENDING.
Decision<Nothing> Decide(std::vector<Row> sending, const RecoverRequest& request, const Rules& rules = kRules);

Decision<PurgeAnswer> Decide(const OldRows& old, const PurgeRequest& request, const Rules& rules = kRules);

// The current budget that these counters mean.
Budget BudgetOf(const Counters& counters);

}  // namespace userintent::ledger
