// How an unknown outcome becomes known by proof from Astra.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "server/base/utf8.h"
#include "server/ledger/decide_parts.h"

namespace userintent::ledger {
namespace {

// What is wrong with the proof; nothing, if it is one.
std::optional<std::string> WrongProof(const SettleRequest& proof) {
  if (proof.state == State::kSending || (proof.state == State::kUnknown && !proof.answer.confirmed)) {
    return "this state settles nothing";
  }
  const std::string& id = proof.answer.user_intent_id;
  if (proof.state == State::kSucceeded && !IsAstraId(id)) {
    return "the intent id must have 1 to 256 bytes of UTF-8 without control characters";
  }
  if (proof.state != State::kSucceeded && !id.empty()) return "an intent was made, or it was not";
  if (std::optional<std::string> wrong = WrongText("action", proof.action, 128)) return wrong;
  return WrongText("evidence", proof.evidence, 1024);
}

Conflict ConflictOf(const SettleRequest& proof, const Record& record) {
  Conflict conflict;
  conflict.at = proof.now;
  conflict.key = proof.key;
  conflict.attempt_id = proof.attempt_id;
  conflict.recorded = record.state;
  conflict.recorded_intent = record.answer.user_intent_id;
  conflict.claimed = proof.state;
  conflict.claimed_intent = proof.answer.user_intent_id;
  conflict.action = proof.action;
  conflict.evidence = proof.evidence;
  return conflict;
}

AuditEntry EntryOf(const SettleRequest& proof, State from) {
  AuditEntry entry;
  entry.at = proof.now;
  entry.actor = "astra";
  entry.action = proof.action;
  entry.key = proof.key;
  entry.from = from;
  entry.to = proof.state;
  entry.evidence = proof.evidence;
  return entry;
}

// The row is released, so neither is it in anybody's way, nor does it replace another one: it leaves the chain of those
// that replaced each other. Who had replaced it now replaces what it had replaced, as its caller knew when it sent.
// Were the row marked on, its next POST would go unseen.
void LeaveChain(View& view, absl::Time now, Changes& changes) {
  Record& record = view.own->record;
  const Uuid& id = record.key.request_id;
  std::optional<Uuid> by;
  if (view.superseding && view.superseding->record.supersedes == id) by = view.superseding->record.key.request_id;
  record.superseded_by.reset();
  const bool replaces = view.other && view.other->record.superseded_by == id;
  if (by) {
    std::optional<Uuid>& supersedes = view.superseding->record.supersedes;
    supersedes.reset();
    if (replaces) supersedes = view.other->record.key.request_id;
    changes.rows.emplace_back(*std::move(view.superseding), RowChange::Part::kProgress);
  }
  if (replaces) MarkSuperseded(*std::move(view.other), by, now, changes);
}

// The row as the proof says, with everything that goes with it.
void SettleRow(View& view, const SettleRequest& proof, const Rules& rules, Changes& changes) {
  Record& record = view.own->record;
  changes.audit = EntryOf(proof, record.state);
  const Counters was = rules.count_of(record);
  record.state = proof.state;
  record.sent = std::max(record.sent, proof.sent);
  record.reason = proof.state == State::kSucceeded ? 0 : proof.reason;
  record.answer = proof.answer;
  // 2xx without an intent is UNKNOWN, and was made for sure.
  record.answer.confirmed = proof.state == State::kSucceeded || proof.state == State::kUnknown;
  record.latest = LatestOf(record);
  record.updated = proof.now;
  view.own->owner = 0;
  if (rules.leaves_chain(proof.state)) LeaveChain(view, proof.now, changes);
  Replace(was, Row(*view.own), RowChange::Part::kProgress, rules, changes, true);
}

}  // namespace

Lookup LookupFor(const SettleRequest& request, const Rules& rules) {
  Lookup lookup;
  lookup.key = &request.key;
  lookup.superseded = lookup.superseding = rules.leaves_chain(request.state);
  return lookup;
}

Decision<SettleAnswer> Decide(View&& view, const SettleRequest& request, const Rules& rules) {
  if (std::optional<std::string> wrong = WrongProof(request)) {
    return Refuse<SettleAnswer>(Refusal::kInvalid, *std::move(wrong));
  }
  if (!view.own) return Refuse<SettleAnswer>(Refusal::kNotFound, "no such row");
  if (!rules.speaks_of(view.own->record, request.attempt_id)) {
    return Refuse<SettleAnswer>(Refusal::kNotFound, "the proof speaks of another POST");
  }
  Decision<SettleAnswer> decision;
  const SettleVerdict verdict = rules.judge_proof(view.own->record, request);
  decision.answer.verdict = verdict;
  if (verdict == SettleVerdict::kConflict) decision.changes.conflict = ConflictOf(request, view.own->record);
  if (verdict == SettleVerdict::kSettled || verdict == SettleVerdict::kCounted) {
    SettleRow(view, request, rules, decision.changes);
  }
  const bool agreed = verdict == SettleVerdict::kSettled || verdict == SettleVerdict::kSaysSo;
  if (request.reading && agreed && view.own->record.state == State::kSucceeded) {
    TakeReading(*view.own, *request.reading, verdict == SettleVerdict::kSaysSo, decision.changes);
  }
  decision.answer.record = std::move(view.own->record);
  return decision;
}

}  // namespace userintent::ledger
