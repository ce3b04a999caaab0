// In this order: what a request is looked up by; Begin; how rows end and go on.
#include "server/ledger/decide.h"

#include <algorithm>
#include <utility>

#include "server/ledger/decide_parts.h"

namespace userintent::ledger {
namespace {

// One digest of the request under each of its fingerprints; each value once, the current one first.
Lookup::Digests Each(const BeginRequest& request, Digest Fingerprints::*digest) {
  Lookup::Digests all = {&(request.current.*digest)};
  for (const Fingerprints& prints : request.older) {
    const Digest& one = prints.*digest;
    if (std::none_of(all.begin(), all.end(), [&](const Digest* known) { return Same(*known, one); })) {
      all.push_back(&one);
    }
  }
  return all;
}

}  // namespace

// ---- what a request is looked up by ----

Lookup LookupFor(const BeginRequest& request, const Rules& rules) {
  Lookup lookup;
  lookup.key = &request.key;
  lookup.other = request.supersedes;
  lookup.open = true;
  lookup.open_if = rules.may_send_from;
  lookup.emails = Each(request, &Fingerprints::email);
  // An address is moved whole, a person's row only when it has succeeded: the two may be under different ones.
  if (!request.allow_repeat) lookup.persons = Each(request, &Fingerprints::person);
  return lookup;
}

Lookup LookupFor(const FinishRequest& request, const Rules& rules) {
  Lookup lookup;
  lookup.key = &request.key;
  lookup.superseded = rules.frees_superseded(request.state);
  lookup.counters = true;
  return lookup;
}

Lookup LookupFor(const NextAttemptRequest& request) {
  Lookup lookup;
  lookup.key = &request.key;
  return lookup;
}

Lookup LookupFor(const GetRequest& request) {
  Lookup lookup;
  lookup.key = &request.key;
  if (!request.intent.empty()) lookup.intent = &request.intent;
  lookup.counters = true;
  return lookup;
}

Lookup LookupFor(const ReadingRequest& request) {
  Lookup lookup;
  lookup.key = &request.key;
  return lookup;
}

Lookup LookupFor(const ResolveRequest& request) {
  Lookup lookup;
  lookup.key = &request.key;
  lookup.counters = true;
  return lookup;
}

void MarkSuperseded(Row named, const std::optional<Uuid>& by, absl::Time now, Changes& changes) {
  named.record.superseded_by = by;
  named.record.updated = now;
  changes.rows.emplace_back(std::move(named), RowChange::Part::kProgress);
}

// ---- Begin ----

namespace {

bool UnderCurrent(const Row& own, const Fingerprints& current) {
  return own.key_id == current.key_id && Same(own.content, current.content) && Same(own.person, current.person) &&
         Same(own.email, current.email);
}

void PutUnder(const Fingerprints& current, Row& row) {
  row.key_id = current.key_id;
  row.content = current.content;
  row.person = current.person;
  row.email = current.email;
}

// One Begin, in the contract's order of checks. Each check sets the verdict and returns true when it decides.
class BeginDecision {
 public:
  BeginDecision(const View& view, const BeginRequest& request, const Rules& rules)
      : view_(view), request_(request), rules_(rules) {
    answer().budget = BudgetOf(view.counters);
    if (view.own) answer().own = view.own->record;
  }

  Decision<BeginAnswer> Take(bool admitted) {
    if (request_.may_start) MoveToCurrent();
    if (OfOwnRow() || OfPerson() || OfAttempts() || OfAddress()) return std::move(decision_);
    // Go, unless another caller created this person: told here alone, where a wrong guess at a birth date or at an
    // SSN's digits would be sent and spend one of the address's attempts.
    decision_.asks_admission = request_.may_start && admitted && request_.admission != nullptr;
    if (!request_.may_start || !admitted) {
      Decide(BeginVerdict::kWouldGo);
    } else if (created_elsewhere_) {
      Decide(BeginVerdict::kPersonExists);
    } else {
      Go();
    }
    return std::move(decision_);
  }

 private:
  BeginAnswer& answer() { return decision_.answer; }
  bool Decide(BeginVerdict verdict) {
    answer().verdict = verdict;
    return true;
  }

  // Everything that is known of the request under an older fingerprint moves to the current one.
  void MoveToCurrent() {
    const Fingerprints& current = request_.current;
    const std::optional<Row>& own = view_.own;
    bool moves = false;
    for (const Fingerprints& prints : request_.older) {
      if (!Same(prints.email, current.email)) decision_.changes.emails.push_back({prints.email, current.email});
      if (!Same(prints.person, current.person)) {
        decision_.changes.persons.push_back({current.email, prints.person, current.person});
      }
      moves = moves || (own && own->key_id == prints.key_id && Same(own->content, prints.content));
    }
    if (!moves || UnderCurrent(*own, current)) return;
    Row row = *own;
    PutUnder(current, row);
    decision_.changes.rows.emplace_back(std::move(row), RowChange::Part::kWhole);
  }

  // 1. The id's own row. RELEASED rows stay bound to their content too.
  bool OfOwnRow() {
    if (!view_.own) return false;
    const Row& own = *view_.own;
    const std::optional<bool> same = rules_.same_content(own, request_);
    if (!same) {
      decision_ = Refuse<BeginAnswer>(Refusal::kUnknowable, "a row is under a key that was not given");
      return true;
    }
    if (!*same) {
      answer().content = own.content;
      return Decide(BeginVerdict::kReused);
    }
    if (rules_.may_send_from(own.record.state)) return false;
    if (own.record.state != State::kSending) return Decide(BeginVerdict::kRecorded);
    answer().owner.epoch = own.owner;
    return Decide(BeginVerdict::kInProgress);
  }

  // 2. This person was created before, or the row to be replaced turned out to have succeeded.
  bool OfPerson() {
    const std::optional<Row>& named = view_.other;
    if (named && named->record.state == State::kSucceeded && SameEmail(*named, request_)) {
      answer().existing_intent_id = named->record.answer.user_intent_id;
      return Decide(BeginVerdict::kPersonExists);
    }
    const Row* const person = request_.allow_repeat || !view_.person ? nullptr : &*view_.person;
    if (person == nullptr || !rules_.created_before(*person, request_)) return false;
    const Record& record = person->record;
    created_elsewhere_ = !rules_.may_tell_at_once(record.key, request_.key);
    if (created_elsewhere_) return false;
    answer().existing_intent_id = record.answer.user_intent_id;
    return Decide(BeginVerdict::kPersonExists);
  }

  // 3. Surely used up. used_max is not asked: wrongly refusing locks a real person out, wrongly sending costs one call.
  bool OfAttempts() {
    if (request_.attempt_limit <= 0 || answer().budget.used_min < request_.attempt_limit) return false;
    return Decide(BeginVerdict::kExhausted);
  }

  // 4. Another request for the address is running. 5. Another one has an unknown outcome, and is not the one that this
  // call knowingly replaces.
  bool OfAddress() {
    for (const Row& row : view_.open) {
      if (row.record.key != request_.key && rules_.is_busy(row)) return Decide(BeginVerdict::kEmailBusy);
    }
    replaced_ = Named();
    bool unresolved = false;
    for (const Row& row : view_.open) {
      if (row.record.key == request_.key || !rules_.is_unresolved(row, request_.key)) continue;
      if (replaced_ != nullptr && row.record.key == replaced_->record.key) continue;
      unresolved = true;
      if (row.record.key.caller == request_.key.caller) answer().unresolved = row.record.key.request_id;
    }
    if (request_.supersedes && replaced_ == nullptr) return Decide(BeginVerdict::kSupersedesInvalid);
    return unresolved && Decide(BeginVerdict::kEmailUnresolved);
  }

  // The row that this call knowingly replaces: the caller's own with that id, or else, with the right to it, another
  // caller's. Null: there is none that it may replace, or several callers used the id and it cannot be told whose is
  // meant.
  const Row* Named() const {
    if (!request_.supersedes) return nullptr;
    if (view_.other && rules_.may_supersede(rules_, *view_.other, request_)) return &*view_.other;
    const Row* found = nullptr;
    for (const Row& row : view_.open) {
      if (row.record.key.request_id != *request_.supersedes) continue;
      if (!rules_.may_supersede(rules_, row, request_)) continue;
      if (found != nullptr) return nullptr;
      found = &row;
    }
    return found;
  }

  // For operators: one caller has put aside what another one did.
  AuditEntry EntryOfReplacing() const {
    AuditEntry entry;
    entry.at = request_.now;
    entry.actor = "caller";
    entry.action = "supersede another caller's request";
    entry.key = replaced_->record.key;
    entry.from = entry.to = replaced_->record.state;
    entry.evidence = "by " + request_.key.caller + ", request " + UuidText(request_.key.request_id);
    return entry;
  }

  // 6.
  void Go() {
    Changes& changes = decision_.changes;
    changes.rows.clear();  // the row moves with its start
    Row row;
    if (view_.own) {
      row = *view_.own;
    } else {
      row.record.key = request_.key;
      row.record.created = request_.now;
    }
    PutUnder(request_.current, row);
    row.record.state = State::kSending;
    row.record.reason = 0;
    row.record.answer = Answer{};
    row.record.latest = Reading{};
    row.record.attempt_id = request_.attempt_id;
    row.record.posts += 1;
    row.record.verification_type = request_.verification_type;
    row.record.supersedes = request_.supersedes;
    row.record.updated = request_.now;
    row.owner = request_.owner;
    answer().own = row.record;
    Counters counters = view_.counters;
    const Counters was = view_.own ? rules_.count_of(view_.own->record) : Counters{};
    counters += Replace(was, std::move(row), RowChange::Part::kWhole, rules_, changes);
    answer().budget = BudgetOf(counters);
    if (replaced_ != nullptr) {
      if (replaced_->record.key.caller != request_.key.caller) changes.audit = EntryOfReplacing();
      Row named = *replaced_;
      named.email = request_.current.email;  // it has moved with its address
      MarkSuperseded(std::move(named), request_.key.request_id, request_.now, changes);
    }
    Decide(BeginVerdict::kGo);
  }

  const View& view_;
  const BeginRequest& request_;
  const Rules& rules_;
  Decision<BeginAnswer> decision_;
  bool created_elsewhere_ = false;
  const Row* replaced_ = nullptr;  // in view_
};

}  // namespace

Decision<BeginAnswer> Decide(const View& view, const BeginRequest& request, const Rules& rules, bool admitted) {
  return BeginDecision(view, request, rules).Take(admitted);
}

// ---- how rows end and go on ----

Decision<FinishAnswer> Decide(View&& view, const FinishRequest& request, const Rules& rules) {
  if (request.state == State::kSending) return Refuse<FinishAnswer>(Refusal::kInvalid, "SENDING ends nothing");
  if (!view.own) return Refuse<FinishAnswer>(Refusal::kNotFound, "no such row");
  Row& row = *view.own;
  if (!rules.may_finish(row, request)) return Refuse<FinishAnswer>(Refusal::kState, "the row is not SENDING");

  Decision<FinishAnswer> decision;
  const Counters was = rules.count_of(row.record);
  row.record.state = request.state;
  row.record.sent = std::max(row.record.sent, request.sent);
  row.record.reason = request.state == State::kSucceeded ? 0 : request.reason;
  row.record.answer = request.answer;
  // A 2xx line is what makes a success; a rejected or released attempt never has one.
  if (request.state != State::kUnknown) row.record.answer.confirmed = request.state == State::kSucceeded;
  row.record.latest = LatestOf(row.record);
  row.record.updated = request.now;
  row.owner = 0;
  decision.answer.committed = true;
  decision.answer.record = row.record;
  Counters counters = view.counters;
  counters += Replace(was, std::move(row), RowChange::Part::kProgress, rules, decision.changes, true);
  decision.answer.budget = BudgetOf(counters);
  if (rules.frees_superseded(request.state) && view.other &&
      view.other->record.superseded_by == request.key.request_id) {
    MarkSuperseded(*std::move(view.other), std::nullopt, request.now, decision.changes);
  }
  return decision;
}

Decision<Nothing> Decide(View&& view, const NextAttemptRequest& request) {
  if (!view.own) return Refuse<Nothing>(Refusal::kNotFound, "no such row");
  Row& row = *view.own;
  if (row.record.state != State::kSending || row.owner != request.owner) {
    return Refuse<Nothing>(Refusal::kState, "the row is not SENDING");
  }
  row.record.attempt_id = request.attempt_id;
  row.record.posts += 1;
  row.record.sent = std::max(row.record.sent, request.sent_so_far);
  row.record.updated = request.now;
  Decision<Nothing> decision;
  decision.changes.rows.emplace_back(std::move(row), RowChange::Part::kProgress);
  return decision;
}

GetAnswer Decide(View&& view, const GetRequest&) {
  GetAnswer answer;
  answer.available = true;
  if (!view.own) return answer;
  answer.budget = BudgetOf(view.counters);
  answer.record = std::move(view.own->record);
  return answer;
}

void TakeReading(Row& row, const Reading& reading, bool log_news, Changes& changes) {
  const Reading before = row.record.latest;
  if (reading.read_at < before.read_at && reading.after != before.read_at) return;
  // `updated` stays: a retention counts from the end of the creation, not from the last look at it.
  Reading& latest = row.record.latest;
  latest = reading;
  latest.status_since = StatusSince(before, latest);
  const bool news = latest.astra_status != before.astra_status || latest.user_id != before.user_id ||
                    latest.verification_type != before.verification_type;
  changes.rows.emplace_back(Row(row), RowChange::Part::kLatest, news && log_news);
}

Decision<Nothing> Decide(View&& view, const ReadingRequest& request) {
  if (!view.own) return Refuse<Nothing>(Refusal::kNotFound, "no such row");
  if (view.own->record.state != State::kSucceeded) return Refuse<Nothing>(Refusal::kState, "the row is not SUCCEEDED");
  Decision<Nothing> decision;
  TakeReading(*view.own, request.reading, true, decision.changes);
  return decision;
}

Decision<Nothing> Decide(std::vector<Row> sending, const RecoverRequest& request, const Rules& rules) {
  Decision<Nothing> decision;
  for (Row& row : sending) {
    const Counters was = rules.count_of(row.record);
    row.record.state = rules.state_after_crash;
    row.record.sent = std::max(row.record.sent, Sent::kMaybe);
    row.record.reason = request.reason;
    row.record.updated = request.now;
    Replace(was, std::move(row), RowChange::Part::kProgress, rules, decision.changes, true);
  }
  return decision;
}

}  // namespace userintent::ledger
