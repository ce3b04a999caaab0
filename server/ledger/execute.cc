#include "server/ledger/execute.h"

#include <algorithm>
#include <utility>

namespace userintent::ledger {
namespace {

absl::Status StatusOf(Refusal refusal, std::string why) {
  switch (refusal) {
    case Refusal::kNone:
      return absl::OkStatus();
    case Refusal::kNotFound:
      return absl::NotFoundError(why);
    case Refusal::kState:
      return absl::FailedPreconditionError(why);
    case Refusal::kInvalid:
      return absl::InvalidArgumentError(why);
    case Refusal::kUnknowable:
      return absl::InternalError(why);
  }
  return absl::InternalError(why);
}

template <typename Answer>
absl::StatusOr<Answer> Take(Store& store, Decision<Answer>&& decision) {
  if (decision.refusal != Refusal::kNone) return StatusOf(decision.refusal, std::move(decision.why));
  if (!decision.changes.empty()) {
    if (absl::Status s = store.Apply(std::move(decision.changes)); !s.ok()) return s;
  }
  return std::move(decision.answer);
}

// `rules`: Rules, where the decision depends on them.
template <typename Answer, typename Request, typename... R>
absl::StatusOr<Answer> LoadAndDecide(Store& store, const Lookup& lookup, const Request& request, const R&... rules) {
  absl::StatusOr<View> view = store.Load(lookup);
  if (!view.ok()) return view.status();
  return Take(store, Decide(*std::move(view), request, rules...));
}

}  // namespace

bool IsRefusal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsNotFound(status) || absl::IsInvalidArgument(status);
}

absl::StatusOr<BeginAnswer> Execute(Store& store, const BeginRequest& request, const Rules& rules) {
  const absl::StatusOr<View> view = store.Load(LookupFor(request, rules));
  if (!view.ok()) return view.status();
  Decision<BeginAnswer> decision = Decide(*view, request, rules);
  if (decision.asks_admission && !request.admission->MayStart()) decision = Decide(*view, request, rules, false);
  return Take(store, std::move(decision));
}

absl::StatusOr<FinishAnswer> Execute(Store& store, const FinishRequest& request, const Rules& rules) {
  return LoadAndDecide<FinishAnswer>(store, LookupFor(request, rules), request, rules);
}

absl::Status Execute(Store& store, const NextAttemptRequest& request) {
  return LoadAndDecide<Nothing>(store, LookupFor(request), request).status();
}

absl::StatusOr<GetAnswer> Execute(Store& store, const GetRequest& request) {
  absl::StatusOr<View> view = store.Load(LookupFor(request));
  if (!view.ok()) return view.status();
  return Decide(*std::move(view), request);
}

absl::Status Execute(Store& store, const ReadingRequest& request) {
  return LoadAndDecide<Nothing>(store, LookupFor(request), request).status();
}

absl::StatusOr<SettleAnswer> Execute(Store& store, const SettleRequest& request, const Rules& rules) {
  return LoadAndDecide<SettleAnswer>(store, LookupFor(request, rules), request, rules);
}

absl::StatusOr<ResolveAnswer> Execute(Store& store, const ResolveRequest& request, const Rules& rules) {
  return LoadAndDecide<ResolveAnswer>(store, LookupFor(request), request, rules);
}

absl::StatusOr<size_t> Execute(Store& store, const RecoverRequest& request, const Rules& rules) {
  absl::StatusOr<std::vector<Row>> rows = store.Sending(request.limit);
  if (!rows.ok()) return rows.status();
  const size_t count = rows->size();
  const absl::StatusOr<Nothing> done = Take(store, Decide(*std::move(rows), request, rules));
  if (!done.ok()) return done.status();
  return count;
}

absl::StatusOr<PurgeAnswer> Execute(Store& store, const PurgeRequest& request, const Rules& rules) {
  const absl::StatusOr<OldRows> old =
      store.NextOldRows(std::max(request.before, request.released_before), request.limit);
  if (!old.ok()) return old.status();
  return Take(store, Decide(*old, request, rules));
}

absl::StatusOr<TraceAnswer> Execute(Store& store, const TraceRequest& request) { return store.Trace(request); }

absl::StatusOr<SucceededAnswer> Execute(Store& store, const SucceededRequest& request) {
  return store.Succeeded(request);
}

absl::StatusOr<UnresolvedAnswer> Execute(Store& store, const UnresolvedRequest&) { return store.Unresolved(); }

absl::StatusOr<ChangeFeed::Answer> Execute(Store& store, const ChangeFeed::Request& request) {
  absl::StatusOr<LogSlice> slice = store.ReadLog({&request.caller, request.only.get(), request.after, request.limit});
  if (!slice.ok()) return slice.status();
  ChangeFeed::Answer answer;
  answer.available = true;
  answer.too_old = slice->too_old;
  answer.upto = slice->upto;
  for (LogSlice::Entry& entry : slice->entries) {
    answer.changed.push_back({entry.revision, std::move(entry.row.record), BudgetOf(entry.counters)});
  }
  return answer;
}

}  // namespace userintent::ledger
