// What operators decide, and forgetting.
#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/base/text.h"
#include "server/base/utf8.h"
#include "server/ledger/decide_parts.h"

namespace userintent::ledger {

std::optional<std::string> WrongText(const char* what, std::string_view text, size_t most) {
  if (text.empty() || text.size() > most) return absl::StrCat(what, " must have 1 to ", most, " bytes");
  if (!AllPrintable(text)) return absl::StrCat(what, " must be printable ASCII");
  if (text.find_first_not_of(' ') == text.npos) return absl::StrCat(what, " must not be blank");
  return std::nullopt;
}

namespace {

std::optional<std::string> WrongWords(const ResolveRequest& request) {
  if (request.created && !IsAstraId(*request.created)) {
    return "the intent id must have 1 to 256 bytes of UTF-8 without control characters";
  }
  if (std::optional<std::string> wrong = WrongText("actor", request.actor, 128)) return wrong;
  if (std::optional<std::string> wrong = WrongText("evidence", request.evidence, 1024)) return wrong;
  // A cheap guard: the entry is kept for ever, and nothing in this ledger names a person.
  if (request.evidence.find('@') != std::string::npos) {
    return "evidence must not hold an e-mail address or other personal data: name a ticket, or the id of Astra's "
           "answer";
  }
  return std::nullopt;
}

bool SaysSo(const Record& record, const ResolveRequest& request) {
  if (!request.created) return record.state == State::kFailed;
  return record.state == State::kSucceeded && record.answer.user_intent_id == *request.created;
}

AuditEntry EntryOf(const ResolveRequest& request, State from, State to) {
  AuditEntry entry;
  entry.at = request.now;
  entry.actor = request.actor;
  entry.action = request.created ? "resolve as created" : "resolve as not created";
  entry.key = request.key;
  entry.from = from;
  entry.to = to;
  entry.evidence = request.evidence;
  return entry;
}

}  // namespace

Outcomes AcceptedOutcomes(const Record& record, const Rules& rules) {
  Outcomes outcomes;
  for (const bool created : {true, false}) {
    const char* const why_not = rules.why_not_resolve(record, created);
    if (why_not == nullptr) {
      absl::StrAppend(&outcomes.accepted, outcomes.accepted.empty() ? "" : ", or ",
                      created ? "created, with the intent's id" : "not created");
    } else if (outcomes.why_not != why_not) {
      absl::StrAppend(&outcomes.why_not, outcomes.why_not.empty() ? "" : "; ", why_not);
    }
  }
  return outcomes;
}

Decision<ResolveAnswer> Decide(View&& view, const ResolveRequest& request, const Rules& rules) {
  if (std::optional<std::string> wrong = WrongWords(request)) {
    return Refuse<ResolveAnswer>(Refusal::kInvalid, *std::move(wrong));
  }
  if (!view.own) return Refuse<ResolveAnswer>(Refusal::kNotFound, "this caller has no such request");
  Decision<ResolveAnswer> decision;
  Row& row = *view.own;
  Record& record = row.record;
  Counters counters = view.counters;
  decision.answer.changed = !SaysSo(record, request);
  if (decision.answer.changed) {
    if (const char* why = rules.why_not_resolve(record, request.created.has_value())) {
      const std::string accepted = AcceptedOutcomes(record, rules).accepted;
      return Refuse<ResolveAnswer>(Refusal::kState,
                                   absl::StrCat(why, accepted.empty() ? "" : "; accepted: ", accepted));
    }
    const State before = record.state;
    const Counters was = rules.count_of(record);
    record.sent = Sent::kYes;  // as of every answer that ends with these reasons; and the cautious word
    if (request.created) {
      record.state = State::kSucceeded;
      record.reason = 0;
      record.answer.confirmed = true;
      record.answer.user_intent_id = *request.created;
      record.answer.astra_status.clear();
      record.answer.at = request.now;
    } else {
      // Whether Astra counts it is still not known: the attempt stays counted as possible.
      record.state = rules.state_if_not_created;
      record.reason = request.not_created_reason;
      record.answer.confirmed = false;
    }
    record.updated = request.now;
    record.latest = LatestOf(record);
    row.owner = 0;
    // What supersedes what stays: each of the two rows had a POST of its own, whichever way this one ended.
    counters += Replace(was, Row(row), RowChange::Part::kProgress, rules, decision.changes, true);
    decision.changes.audit = EntryOf(request, before, record.state);
  }
  decision.answer.budget = BudgetOf(counters);
  decision.answer.record = std::move(record);
  return decision;
}

// ---- forgetting ----

namespace {

// The old rows and what they are linked to, as they become while one after the other is forgotten.
class Purge {
 public:
  Purge(const OldRows& old, const Rules& rules) : rules_(rules) {
    for (const std::vector<Row>* rows : {&old.rows, &old.linked}) {
      for (const Row& row : *rows) rows_.try_emplace(row.record.key, State{row});
    }
  }

  bool Forget(const Key& key, const PurgeRequest& request, Changes& changes) {
    State& state = rows_.at(key);
    const Record& record = state.row.record;
    if (!rules_.may_purge(record, request)) return false;
    const std::vector<State*> linked = LinkedTo(record);
    if (std::any_of(linked.begin(), linked.end(),
                    [this](const State* other) { return rules_.is_needed_by(other->row.record); })) {
      return false;
    }
    for (State* other : linked) {
      Record& of = other->row.record;
      if (of.supersedes == key.request_id) of.supersedes.reset();
      if (of.superseded_by == key.request_id) of.superseded_by.reset();
      other->changed = true;
    }
    state.gone = true;
    changes.purged.push_back({state.row, rules_.count_of(record)});
    return true;
  }

  // What lost a link and stays.
  void AddChanged(Changes& changes) {
    for (auto& [key, state] : rows_) {
      if (state.changed && !state.gone) changes.rows.emplace_back(std::move(state.row), RowChange::Part::kProgress);
    }
  }

 private:
  struct State {
    Row row;
    bool changed = false;
    bool gone = false;
  };

  // The rows that this one superseded and that superseded it, as far as they say so too.
  std::vector<State*> LinkedTo(const Record& record) {
    std::vector<State*> linked;
    for (const std::optional<Uuid>& id : {record.supersedes, record.superseded_by}) {
      if (!id) continue;
      const auto other = rows_.find(Key{record.key.caller, *id});
      if (other == rows_.end() || other->second.gone) continue;
      const Record& of = other->second.row.record;
      if (of.supersedes == record.key.request_id || of.superseded_by == record.key.request_id) {
        linked.push_back(&other->second);
      }
    }
    return linked;
  }

  const Rules& rules_;
  absl::flat_hash_map<Key, State, KeyHash> rows_;
};

}  // namespace

Decision<PurgeAnswer> Decide(const OldRows& old, const PurgeRequest& request, const Rules& rules) {
  Decision<PurgeAnswer> decision;
  decision.answer.seen = old.rows.size();
  Purge purge(old, rules);
  for (const Row& row : old.rows) {
    if (purge.Forget(row.record.key, request, decision.changes)) ++decision.answer.purged;
  }
  purge.AddChanged(decision.changes);
  return decision;
}

}  // namespace userintent::ledger
