#include "server/ledger/book.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/text.h"

namespace userintent::ledger {
namespace {

// Digests are keyed hashes, so a timing leak would tell little; the rule is constant time all the same.
bool Same(const Digest& a, const Digest& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

// One digest of the request under each of its fingerprints; each value once, the current one first.
std::vector<const Digest*> Each(const BeginRequest& request, Digest Fingerprints::*digest) {
  std::vector<const Digest*> all = {&(request.current.*digest)};
  for (const Fingerprints& prints : request.older) {
    const Digest& one = prints.*digest;
    if (std::none_of(all.begin(), all.end(), [&](const Digest* known) { return Same(*known, one); })) {
      all.push_back(&one);
    }
  }
  return all;
}

bool Final(State state) { return state == State::kSucceeded || state == State::kFailed; }

absl::Status CheckText(const char* what, std::string_view text, size_t most) {
  if (text.empty() || text.size() > most) {
    return absl::InvalidArgumentError(absl::StrCat(what, " must have 1 to ", most, " bytes"));
  }
  if (!AllPrintable(text)) return absl::InvalidArgumentError(absl::StrCat(what, " must be printable ASCII"));
  if (text.find_first_not_of(' ') == text.npos) {
    return absl::InvalidArgumentError(absl::StrCat(what, " must not be blank"));
  }
  return absl::OkStatus();
}

absl::Status CheckWords(const ResolveRequest& request) {
  if (request.created) {
    const std::string& id = *request.created;
    if (id.empty() || id.size() > 256 || HasControlCharacter(id)) {
      return absl::InvalidArgumentError("the intent id must have 1 to 256 bytes without control characters");
    }
  }
  if (absl::Status s = CheckText("actor", request.actor, 128); !s.ok()) return s;
  if (absl::Status s = CheckText("evidence", request.evidence, 1024); !s.ok()) return s;
  // A cheap guard: the entry is kept for ever, and nothing in this ledger names a person.
  if (request.evidence.find('@') != std::string::npos) {
    return absl::InvalidArgumentError(
        "evidence must not hold an e-mail address or other personal data: name a ticket, or the id of Astra's answer");
  }
  return absl::OkStatus();
}

}  // namespace

Budget BudgetOf(const Counters& counters) { return {counters.confirmed, counters.confirmed + counters.possible}; }

bool IsProtocolError(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsNotFound(status) || absl::IsInvalidArgument(status);
}

absl::StatusOr<bool> Book::SameContent(const Row& own, const BeginRequest& request) const {
  bool known = own.key_id == request.current.key_id;
  if (known && Same(own.content, request.current.content)) return true;
  for (const Fingerprints& prints : request.older) {
    if (own.key_id != prints.key_id) continue;
    known = true;
    if (Same(own.content, prints.content)) return true;
  }
  if (known) return false;
  // Neither "same" nor "other" can be said honestly, and both would be acted upon.
  return absl::InternalError("a row is under a key that was not given");
}

bool Book::IsUnresolved(const Row& other, const Key& asking) const {
  if (other.record.state != State::kUnknown) return false;
  // A row superseded by the very id that asks is open again: that id is starting anew.
  return !other.record.superseded_by ||
         (other.record.key.caller == asking.caller && *other.record.superseded_by == asking.request_id);
}

bool Book::MaySupersede(const Row& named, const BeginRequest& request) const {
  return named.record.key.caller == request.key.caller && SameEmail(named, request) && IsUnresolved(named, request.key);
}

bool Book::CreatedBefore(const Row& found, const BeginRequest& request) const {
  return found.record.state == State::kSucceeded && found.record.key != request.key;
}

Counters Book::CountOf(const Record& record) const {
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

bool Book::SameEmail(const Row& row, const BeginRequest& request) {
  return Same(row.email, request.current.email) ||
         std::any_of(request.older.begin(), request.older.end(),
                     [&row](const Fingerprints& prints) { return Same(row.email, prints.email); });
}

absl::StatusOr<Counters> Book::CountAll(const BeginRequest& request) {
  if (request.older.empty()) return store_.Count(request.current.email);
  Counters all;
  for (const Digest* email : Each(request, &Fingerprints::email)) {
    const absl::StatusOr<Counters> count = store_.Count(*email);
    if (!count.ok()) return count;
    all += *count;
  }
  return all;
}

absl::StatusOr<std::vector<Row>> Book::OpenAll(const BeginRequest& request) {
  if (request.older.empty()) return store_.Open(request.current.email);
  std::vector<Row> all;
  for (const Digest* email : Each(request, &Fingerprints::email)) {
    absl::StatusOr<std::vector<Row>> rows = store_.Open(*email);
    if (!rows.ok()) return rows;
    std::move(rows->begin(), rows->end(), std::back_inserter(all));
  }
  return all;
}

absl::StatusOr<std::optional<Row>> Book::SucceededAny(const BeginRequest& request) {
  const std::string& caller = request.key.caller;
  if (request.older.empty()) return store_.Succeeded(request.current.email, request.current.person, caller);
  // An address is moved whole, a person's row only when it has succeeded: the two may be under different ones.
  const std::vector<const Digest*> persons = Each(request, &Fingerprints::person);
  std::optional<Row> best;
  for (const Digest* email : Each(request, &Fingerprints::email)) {
    for (const Digest* person : persons) {
      absl::StatusOr<std::optional<Row>> found = store_.Succeeded(*email, *person, caller);
      if (!found.ok() || (*found && (*found)->record.key.caller == caller)) return found;
      if (!best) best = *std::move(found);
    }
  }
  return best;
}

absl::Status Book::Rekey(const BeginRequest& request, std::optional<Row>& own) {
  const Fingerprints& current = request.current;
  bool moves = false;
  for (const Fingerprints& prints : request.older) {
    if (!Same(prints.email, current.email)) {
      if (absl::Status s = store_.MoveEmail(prints.email, current.email); !s.ok()) return s;
    }
    if (!Same(prints.person, current.person)) {
      if (absl::Status s = store_.MovePerson(current.email, prints.person, current.person); !s.ok()) return s;
    }
    moves = moves || (own && own->key_id == prints.key_id && Same(own->content, prints.content));
  }
  if (!moves) return absl::OkStatus();
  const bool there = own->key_id == current.key_id && Same(own->content, current.content) &&
                     Same(own->person, current.person) && Same(own->email, current.email);
  if (there) return absl::OkStatus();
  own->key_id = current.key_id;
  own->content = current.content;
  own->person = current.person;
  own->email = current.email;
  return store_.Put(*own);
}

absl::Status Book::Replace(const Record* before, const Row& after) {
  const Counters was = before != nullptr ? CountOf(*before) : Counters{};
  const Counters is = CountOf(after.record);
  // The counter first: a store makes a new address with it at once.
  if (was != is) {
    const Counters delta{is.confirmed - was.confirmed, is.possible - was.possible};
    if (absl::Status s = store_.AddCount(after.email, delta); !s.ok()) return s;
  }
  return store_.Put(after);
}

absl::Status Book::MarkSuperseded(const Key& key, const std::optional<Uuid>& by, absl::Time now) {
  absl::StatusOr<std::optional<Row>> row = store_.Find(key);
  if (!row.ok()) return row.status();
  if (!*row) return absl::InternalError("a superseded row is gone");
  (*row)->record.superseded_by = by;
  (*row)->record.updated = now;
  return store_.Put(**row);
}

absl::StatusOr<BeginAnswer> Book::Begin(const BeginRequest& request) {
  absl::StatusOr<std::optional<Row>> found = store_.Find(request.key);
  if (!found.ok()) return found.status();
  std::optional<Row>& own = *found;
  if (request.may_start) {
    if (absl::Status s = Rekey(request, own); !s.ok()) return s;
  }
  absl::StatusOr<Counters> count = CountAll(request);
  if (!count.ok()) return count.status();

  BeginAnswer answer;
  answer.budget = BudgetOf(*count);
  if (own) answer.own = own->record;
  const auto decide = [&answer](BeginVerdict verdict) -> BeginAnswer& {
    answer.verdict = verdict;
    return answer;
  };

  // 1. The id's own row. RELEASED rows stay bound to their content too.
  if (own) {
    const absl::StatusOr<bool> same = SameContent(*own, request);
    if (!same.ok()) return same.status();
    if (!*same) {
      answer.content = own->content;
      return decide(BeginVerdict::kReused);
    }
    if (!MaySendFrom(own->record.state)) {
      return decide(own->record.state == State::kSending ? BeginVerdict::kInProgress : BeginVerdict::kRecorded);
    }
  }

  // 2. This person was created before, or the row to be replaced turned out to have succeeded.
  std::optional<Row> named;
  if (request.supersedes) {
    absl::StatusOr<std::optional<Row>> row = store_.Find({request.key.caller, *request.supersedes});
    if (!row.ok()) return row.status();
    named = *std::move(row);
    if (named && named->record.state == State::kSucceeded && SameEmail(*named, request)) {
      answer.existing_intent_id = named->record.answer.user_intent_id;
      return decide(BeginVerdict::kPersonExists);
    }
  }
  bool created_elsewhere = false;
  if (!request.allow_repeat) {
    const absl::StatusOr<std::optional<Row>> person = SucceededAny(request);
    if (!person.ok()) return person.status();
    if (*person && CreatedBefore(**person, request)) {
      const Record& record = (*person)->record;
      created_elsewhere = !MayTellAtOnce(record.key, request.key);
      if (!created_elsewhere) {
        answer.existing_intent_id = record.answer.user_intent_id;
        return decide(BeginVerdict::kPersonExists);
      }
    }
  }

  // 3. Surely used up. used_max is not asked: wrongly refusing locks a real person out, wrongly sending costs one call.
  if (request.attempt_limit > 0 && answer.budget.used_min >= request.attempt_limit) {
    return decide(BeginVerdict::kExhausted);
  }

  // 4. Another request for the address is running.
  const absl::StatusOr<std::vector<Row>> open = OpenAll(request);
  if (!open.ok()) return open.status();
  for (const Row& row : *open) {
    if (row.record.key != request.key && IsBusy(row)) return decide(BeginVerdict::kEmailBusy);
  }

  // 5. Another request for the address has an unknown outcome, and is not the one that this call knowingly replaces.
  const bool supersedes = named && MaySupersede(*named, request);
  bool unresolved = false;
  for (const Row& row : *open) {
    if (row.record.key == request.key || !IsUnresolved(row, request.key)) continue;
    if (supersedes && row.record.key == named->record.key) continue;
    unresolved = true;
    if (row.record.key.caller == request.key.caller) answer.unresolved = row.record.key.request_id;
  }
  if (request.supersedes && !supersedes) return decide(BeginVerdict::kSupersedesInvalid);
  if (unresolved) return decide(BeginVerdict::kEmailUnresolved);

  // 6. Go, unless another caller created this person: told here alone, where a wrong guess at a birth date or at an
  // SSN's digits would be sent and spend one of the address's attempts.
  if (!request.may_start || (request.admission != nullptr && !request.admission->MayStart())) {
    return decide(BeginVerdict::kWouldGo);
  }
  if (created_elsewhere) return decide(BeginVerdict::kPersonExists);
  Row row;
  if (own) {
    row = *own;
  } else {
    row.record.key = request.key;
    row.record.created = request.now;
  }
  row.key_id = request.current.key_id;
  row.content = request.current.content;
  row.person = request.current.person;
  row.email = request.current.email;
  row.record.state = State::kSending;
  row.record.reason = 0;
  row.record.answer = Answer{};
  row.record.attempt_id = request.attempt_id;
  row.record.posts += 1;
  row.record.verification_type = request.verification_type;
  row.record.supersedes = request.supersedes;
  row.record.updated = request.now;
  if (absl::Status s = Replace(own ? &own->record : nullptr, row); !s.ok()) return s;
  if (supersedes) {
    if (absl::Status s = MarkSuperseded(named->record.key, request.key.request_id, request.now); !s.ok()) return s;
  }
  count = CountAll(request);
  if (!count.ok()) return count.status();
  answer.budget = BudgetOf(*count);
  answer.own = row.record;
  return decide(BeginVerdict::kGo);
}

absl::StatusOr<FinishAnswer> Book::Finish(const FinishRequest& request) {
  if (request.state == State::kSending) return absl::InvalidArgumentError("SENDING ends nothing");
  absl::StatusOr<std::optional<Row>> found = store_.Find(request.key);
  if (!found.ok()) return found.status();
  if (!*found) return absl::NotFoundError("no such row");
  Row& row = **found;
  if (!MayFinish(row.record.state)) return absl::FailedPreconditionError("the row is not SENDING");

  const Record before = row.record;
  row.record.state = request.state;
  row.record.sent = std::max(before.sent, request.sent);
  row.record.reason = request.state == State::kSucceeded ? 0 : request.reason;
  row.record.answer = request.answer;
  // A 2xx line is what makes a success; a rejected or released attempt never has one.
  if (request.state != State::kUnknown) row.record.answer.confirmed = request.state == State::kSucceeded;
  row.record.latest = LatestOf(row.record);
  row.record.updated = request.now;
  if (absl::Status s = Replace(&before, row); !s.ok()) return s;

  if (FreesSuperseded(request.state) && before.supersedes) {
    const Key named{request.key.caller, *before.supersedes};
    const absl::StatusOr<std::optional<Row>> other = store_.Find(named);
    if (!other.ok()) return other.status();
    if (*other && (*other)->record.superseded_by == request.key.request_id) {
      if (absl::Status s = MarkSuperseded(named, std::nullopt, request.now); !s.ok()) return s;
    }
  }

  const absl::StatusOr<Counters> count = store_.Count(row.email);
  if (!count.ok()) return count.status();
  FinishAnswer answer;
  answer.committed = true;
  answer.record = std::move(row.record);
  answer.budget = BudgetOf(*count);
  return answer;
}

absl::Status Book::NextAttempt(const Key& key, const Uuid& attempt_id, Sent sent_so_far, absl::Time now) {
  absl::StatusOr<std::optional<Row>> found = store_.Find(key);
  if (!found.ok()) return found.status();
  if (!*found) return absl::NotFoundError("no such row");
  Row& row = **found;
  if (row.record.state != State::kSending) return absl::FailedPreconditionError("the row is not SENDING");
  row.record.attempt_id = attempt_id;
  row.record.posts += 1;
  row.record.sent = std::max(row.record.sent, sent_so_far);
  row.record.updated = now;
  return store_.Put(row);
}

absl::StatusOr<GetAnswer> Book::Get(const Key& key) { return GotFrom(store_.Find(key)); }

absl::StatusOr<GetAnswer> Book::FindIntent(const std::string& caller, const std::string& intent) {
  return GotFrom(store_.FindIntent(caller, intent));
}

absl::Status Book::RecordReading(const Key& key, const Reading& reading) {
  const absl::StatusOr<std::optional<Row>> found = store_.Find(key);
  if (!found.ok()) return found.status();
  if (!*found) return absl::NotFoundError("no such row");
  const Record& record = (*found)->record;
  if (record.state != State::kSucceeded) return absl::FailedPreconditionError("the row is not SUCCEEDED");
  if (reading.read_at < record.latest.read_at) return absl::OkStatus();
  Reading latest = reading;
  // `updated` stays: a retention counts from the end of the creation, not from the last look at it.
  const bool same = reading.astra_status == record.latest.astra_status;
  latest.status_since = same ? record.latest.status_since : reading.read_at;
  return store_.SetLatest(key, latest);
}

absl::StatusOr<GetAnswer> Book::GotFrom(absl::StatusOr<std::optional<Row>> found) {
  if (!found.ok()) return found.status();
  GetAnswer answer;
  answer.available = true;
  if (!*found) return answer;
  const absl::StatusOr<Counters> count = store_.Count((*found)->email);
  if (!count.ok()) return count.status();
  answer.budget = BudgetOf(*count);
  answer.record = std::move((*found)->record);
  return answer;
}

absl::StatusOr<size_t> Book::Recover(int reason, absl::Time now, size_t limit) {
  absl::StatusOr<std::vector<Row>> rows = store_.Sending(limit);
  if (!rows.ok()) return rows.status();
  for (Row& row : *rows) {
    const Record before = row.record;
    row.record.state = StateAfterCrash();
    row.record.sent = std::max(before.sent, Sent::kMaybe);
    row.record.reason = reason;
    row.record.updated = now;
    if (absl::Status s = Replace(&before, row); !s.ok()) return s;
  }
  return rows->size();
}

absl::Status Book::MayResolve(const Record& record, bool created) const {
  switch (record.state) {
    case State::kUnknown:
      if (created || !record.answer.confirmed) return absl::OkStatus();
      return absl::FailedPreconditionError(
          "Astra answered with a 2xx status, so it was created: find the intent's id at Astra and resolve it as "
          "created");
    case State::kSending:
      return absl::FailedPreconditionError("the request is SENDING, it still runs: wait until it ends");
    case State::kReleased:
      return absl::FailedPreconditionError("the request is RELEASED, nothing was created: its caller may repeat it");
    case State::kSucceeded:
      return absl::FailedPreconditionError(
          "the request is SUCCEEDED with another outcome: what is recorded is never changed");
    case State::kFailed:
      return absl::FailedPreconditionError("the request is FAILED: what is recorded is never changed");
  }
  return absl::FailedPreconditionError("the request is in a state that does not exist");
}

absl::StatusOr<ResolveAnswer> Book::Resolve(const ResolveRequest& request) {
  if (absl::Status s = CheckWords(request); !s.ok()) return s;
  absl::StatusOr<std::optional<Row>> found = store_.Find(request.key);
  if (!found.ok()) return found.status();
  if (!*found) return absl::NotFoundError("this caller has no such request");
  Row& row = **found;
  Record& record = row.record;
  const Record before = record;

  ResolveAnswer answer;
  answer.changed = request.created
                       ? before.state != State::kSucceeded || before.answer.user_intent_id != *request.created
                       : before.state != State::kFailed;
  if (answer.changed) {
    if (absl::Status s = MayResolve(before, request.created.has_value()); !s.ok()) return s;
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
      record.state = StateIfNotCreated();
      record.reason = request.not_created_reason;
      record.answer.confirmed = false;
    }
    record.updated = request.now;
    record.latest = LatestOf(record);
    // What supersedes what stays: each of the two rows had a POST of its own, whichever way this one ended.
    if (absl::Status s = Replace(&before, row); !s.ok()) return s;
    AuditEntry entry;
    entry.at = request.now;
    entry.actor = request.actor;
    entry.action = request.created ? "resolve as created" : "resolve as not created";
    entry.key = request.key;
    entry.from = before.state;
    entry.to = record.state;
    entry.evidence = request.evidence;
    if (absl::Status s = store_.Append(entry); !s.ok()) return s;
  }
  const absl::StatusOr<Counters> count = store_.Count(row.email);
  if (!count.ok()) return count.status();
  answer.budget = BudgetOf(*count);
  answer.record = std::move(record);
  return answer;
}

bool Book::MayPurge(const Record& record, absl::Time before) const {
  return Final(record.state) && record.updated < before;
}

bool Book::IsNeededBy(const Record& other) const { return !Final(other.state); }

// The rows that this one superseded and that superseded it, as far as they say so too.
absl::StatusOr<std::vector<Row>> Book::LinkedTo(const Record& record) {
  std::vector<Row> rows;
  for (const std::optional<Uuid>& id : {record.supersedes, record.superseded_by}) {
    if (!id) continue;
    absl::StatusOr<std::optional<Row>> other = store_.Find({record.key.caller, *id});
    if (!other.ok()) return other.status();
    if (!*other) continue;
    const Record& of = (*other)->record;
    if (of.supersedes == record.key.request_id || of.superseded_by == record.key.request_id) {
      rows.push_back(**std::move(other));
    }
  }
  return rows;
}

absl::StatusOr<PurgeAnswer> Book::Purge(absl::Time before, size_t limit) {
  const absl::StatusOr<std::vector<Row>> rows = store_.Old(before, limit);
  if (!rows.ok()) return rows.status();
  PurgeAnswer answer;
  answer.seen = rows->size();
  for (const Row& old : *rows) {
    // Again, because what was purged just now may have been linked to it.
    absl::StatusOr<std::optional<Row>> found = store_.Find(old.record.key);
    if (!found.ok()) return found.status();
    if (!*found || !MayPurge((*found)->record, before)) continue;
    const Row& row = **found;
    absl::StatusOr<std::vector<Row>> linked = LinkedTo(row.record);
    if (!linked.ok()) return linked.status();
    if (std::any_of(linked->begin(), linked->end(), [this](const Row& other) { return IsNeededBy(other.record); })) {
      continue;
    }
    for (Row& other : *linked) {
      Record& of = other.record;
      if (of.supersedes == row.record.key.request_id) of.supersedes.reset();
      if (of.superseded_by == row.record.key.request_id) of.superseded_by.reset();
      if (absl::Status s = store_.Put(other); !s.ok()) return s;
    }
    if (absl::Status s = store_.Purge(row, CountOf(row.record)); !s.ok()) return s;
    ++answer.purged;
  }
  return answer;
}

}  // namespace userintent::ledger
