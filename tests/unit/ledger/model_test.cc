// An exhaustive check of ledger::Decide: every history of a few requests of two callers, through every order of Begin,
// arrival at Astra, answer, crash, an operator's resolving, late proof, key rotation and forgetting, up to two POSTs an
// id. Beside
// it runs a model that knows the truth (what Astra got and made), and a specification of the decisions that was
// written from the contract, not from decide.cc. After each step the invariants must hold. The checker itself is
// checked: each seeded mistake must be caught.
#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/ledger/execute.h"
#include "server/ledger/memory_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using V = BeginVerdict;

enum class Mistake {
  kNone,
  // in the rules
  kSendsAgainFromFailed,
  kSendsAgainFromUnknown,
  kSendsAgainFromSending,  // a lease that expires
  kIgnoresContent,
  kIgnoresBusy,
  kIgnoresUnresolved,
  kSupersedesOtherEmail,
  kSupersedesTwice,
  kSupersededStillBlocks,
  kSupersedesStrangers,
  kReleaseKeepsMark,
  kFailureFreesSuperseded,
  kEndsTwice,
  kCrashReleases,
  kCrashFails,
  kRejectedNotCounted,
  kUnknownNotCounted,
  kConfirmedUnknownNotSure,
  kRunningNotCounted,
  kReleasedCounted,
  kPersonOnlyOfThisCaller,
  kTellsAnothersPersonForFree,
  kResolveReopens,
  kResolvesRunning,
  kResolvesAgainstAstra,
  kResolvesEnded,
  kSettlesRunning,
  kSettlesAgainstAstra,
  kSettlesEnded,
  kSettlesByAnyPost,
  kSettleKeepsMarks,
  kSettledFailureLeavesChain,
  kPurgesYoung,
  kPurgesUnknown,
  kPurgesNeeded,
  // in the store
  kPurgesEndedRows,
  kOpenRowsOnlyOfTheOldest,
  kRotationForgetsBudget,
  kRotationForgetsOpenRows,
  kRotationForgetsPersons,
  kPurgeForgetsAttempts,
  // in the transport
  kReleasesBlindly,
  kPostsTwice,
};

constexpr Mistake kLastMistake = Mistake::kPostsTwice;

// The rules with one of them broken.
Rules RulesWith(Mistake mistake) {
  Rules rules;
  switch (mistake) {
    case Mistake::kSendsAgainFromFailed:
      rules.may_send_from = [](State s) { return rule::MaySendFrom(s) || s == State::kFailed; };
      break;
    case Mistake::kSendsAgainFromUnknown:
      rules.may_send_from = [](State s) { return rule::MaySendFrom(s) || s == State::kUnknown; };
      break;
    case Mistake::kSendsAgainFromSending:
      rules.may_send_from = [](State s) { return rule::MaySendFrom(s) || s == State::kSending; };
      break;
    case Mistake::kIgnoresContent:
      rules.same_content = [](const Row&, const BeginRequest&) { return std::optional<bool>(true); };
      break;
    case Mistake::kIgnoresBusy:
      rules.is_busy = [](const Row&) { return false; };
      break;
    case Mistake::kIgnoresUnresolved:
      rules.is_unresolved = [](const Row&, const Key&) { return false; };
      break;
    case Mistake::kSupersededStillBlocks:
      rules.is_unresolved = [](const Row& other, const Key&) { return other.record.state == State::kUnknown; };
      break;
    case Mistake::kSupersedesOtherEmail:
      rules.may_supersede = [](const Rules&, const Row& named, const BeginRequest& request) {
        return rule::IsUnresolved(named, request.key);
      };
      break;
    case Mistake::kSupersedesTwice:
      rules.may_supersede = [](const Rules& all, const Row& named, const BeginRequest& request) {
        Row fresh = named;
        if (fresh.record.state == State::kUnknown) fresh.record.superseded_by.reset();
        return rule::MaySupersede(all, fresh, request);
      };
      break;
    case Mistake::kSupersedesStrangers:
      rules.may_supersede = [](const Rules& all, const Row& named, const BeginRequest& request) {
        BeginRequest bold = request;
        bold.may_supersede_others = true;
        return rule::MaySupersede(all, named, bold);
      };
      break;
    case Mistake::kReleaseKeepsMark:
      rules.frees_superseded = [](State) { return false; };
      break;
    case Mistake::kFailureFreesSuperseded:
      rules.frees_superseded = [](State s) { return rule::FreesSuperseded(s) || s == State::kFailed; };
      break;
    case Mistake::kEndsTwice:
      rules.may_finish = [](const Row&, const FinishRequest&) { return true; };
      break;
    case Mistake::kCrashReleases:
      rules.state_after_crash = State::kReleased;
      break;
    case Mistake::kCrashFails:
      rules.state_after_crash = State::kFailed;
      break;
    case Mistake::kRejectedNotCounted:
      rules.count_of = [](const Record& r) { return r.state == State::kFailed ? Counters{} : rule::CountOf(r); };
      break;
    case Mistake::kUnknownNotCounted:
      rules.count_of = [](const Record& r) { return r.state == State::kUnknown ? Counters{} : rule::CountOf(r); };
      break;
    case Mistake::kConfirmedUnknownNotSure:
      rules.count_of = [](const Record& r) { return r.state == State::kUnknown ? Counters{0, 1} : rule::CountOf(r); };
      break;
    case Mistake::kRunningNotCounted:
      rules.count_of = [](const Record& r) { return r.state == State::kSending ? Counters{} : rule::CountOf(r); };
      break;
    case Mistake::kReleasedCounted:
      rules.count_of = [](const Record& r) { return r.state == State::kReleased ? Counters{0, 1} : rule::CountOf(r); };
      break;
    case Mistake::kPersonOnlyOfThisCaller:
      rules.created_before = [](const Row& found, const BeginRequest& request) {
        return found.record.key.caller == request.key.caller && rule::CreatedBefore(found, request);
      };
      break;
    case Mistake::kTellsAnothersPersonForFree:
      rules.may_tell_at_once = [](const Key&, const Key&) { return true; };
      break;
    case Mistake::kResolveReopens:
      rules.state_if_not_created = State::kReleased;
      break;
    case Mistake::kResolvesRunning:
      rules.why_not_resolve = [](const Record& r, bool created) {
        return r.state == State::kSending ? nullptr : rule::WhyNotResolve(r, created);
      };
      break;
    case Mistake::kResolvesAgainstAstra:
      rules.why_not_resolve = [](const Record& r, bool created) {
        return r.state == State::kUnknown ? nullptr : rule::WhyNotResolve(r, created);
      };
      break;
    case Mistake::kResolvesEnded:
      rules.why_not_resolve = [](const Record& r, bool created) {
        return r.state != State::kSending ? nullptr : rule::WhyNotResolve(r, created);
      };
      break;
    case Mistake::kSettlesRunning:
      rules.judge_proof = [](const Record& r, const SettleRequest& proof) {
        return r.state == State::kSending ? SettleVerdict::kSettled : rule::JudgeProof(r, proof);
      };
      break;
    case Mistake::kSettlesAgainstAstra:
      rules.judge_proof = [](const Record& r, const SettleRequest& proof) {
        return r.state == State::kUnknown ? SettleVerdict::kSettled : rule::JudgeProof(r, proof);
      };
      break;
    case Mistake::kSettlesEnded:
      rules.judge_proof = [](const Record& r, const SettleRequest& proof) {
        return r.state == State::kSending ? rule::JudgeProof(r, proof) : SettleVerdict::kSettled;
      };
      break;
    case Mistake::kSettlesByAnyPost:
      rules.speaks_of = [](const Record&, const Uuid&) { return true; };
      break;
    case Mistake::kSettleKeepsMarks:
      rules.leaves_chain = [](State) { return false; };
      break;
    case Mistake::kSettledFailureLeavesChain:
      rules.leaves_chain = [](State s) { return rule::LeavesChain(s) || s == State::kFailed; };
      break;
    case Mistake::kPurgesYoung:
      rules.may_purge = [](const Record& r, const PurgeRequest&) {
        return rule::MayPurge(r, {absl::InfiniteFuture(), 0, absl::InfiniteFuture()});
      };
      break;
    case Mistake::kPurgesUnknown:
      rules.may_purge = [](const Record& r, const PurgeRequest& request) {
        return r.state == State::kUnknown ? r.updated < request.before : rule::MayPurge(r, request);
      };
      break;
    case Mistake::kPurgesNeeded:
      rules.is_needed_by = [](const Record&) { return false; };
      break;
    default:
      break;  // not of the rules
  }
  return rules;
}

class MistakenStore : public MemoryStore {
 public:
  explicit MistakenStore(Mistake mistake) : mistake_(mistake) {}

  absl::StatusOr<View> Load(const Lookup& lookup) override {
    absl::StatusOr<View> view = MemoryStore::Load(lookup);
    if (mistake_ == Mistake::kPurgesEndedRows) {
      for (std::optional<Row>* row : {&view->own, &view->other}) {
        if (*row && ((*row)->record.state == State::kFailed || (*row)->record.state == State::kSucceeded)) row->reset();
      }
    }
    if (mistake_ == Mistake::kOpenRowsOnlyOfTheOldest && view->open.size() > 1) view->open.resize(1);
    return view;
  }
  absl::Status Apply(Changes changes) override {
    if (mistake_ == Mistake::kRotationForgetsOpenRows || mistake_ == Mistake::kRotationForgetsBudget) {
      for (const Changes::EmailMove& move : changes.emails) {
        const Counters moved = Count(move.from);
        const Counters lost{-moved.confirmed, -moved.possible};
        if (mistake_ == Mistake::kRotationForgetsBudget) {
          changes.counts.push_back({move.to, lost});
        } else {
          changes.counts.push_back({move.from, lost});
          changes.counts.push_back({move.to, moved});
        }
      }
      if (mistake_ == Mistake::kRotationForgetsOpenRows) changes.emails.clear();
    }
    for (Changes::PersonMove& move : changes.persons) {
      if (mistake_ == Mistake::kRotationForgetsPersons) move.to = Digest{};
    }
    for (Changes::Purge& purge : changes.purged) {
      if (mistake_ != Mistake::kPurgeForgetsAttempts) continue;
      changes.counts.push_back({purge.row.email, {-purge.counted.confirmed, -purge.counted.possible}});
      purge.counted = {};
    }
    return MemoryStore::Apply(std::move(changes));
  }

 private:
  Mistake mistake_;
};

// The world that is explored. A slot is one (caller, request_id); the first of them share the id across callers.
struct Content {
  std::string email, person, ip;
};
struct World {
  std::string name;
  std::vector<std::pair<std::string, int>> slots;
  std::vector<Content> contents;
  int limit = 3;
  int rotations = 0;
  std::vector<int> most_attempts;  // POSTs of each slot
  bool aging = false;              // after a while, what ended before it may be forgotten
  bool others = false;             // everybody may supersede other callers' requests
};

constexpr int64_t kAge = 1'000'000;  // seconds

constexpr int kMaxSlots = 4;

// What is true of one slot, whatever the ledger says.
struct Truth {
  int8_t content = -1;   // bound at the first go
  int8_t posts = 0;      // begun and not proved unsent or refused
  int8_t created = 0;    // intents that Astra made
  bool live = false;     // a call owns the row
  bool arrived = false;  // the running POST has reached Astra and created an intent
};

struct Step {
  std::shared_ptr<const Step> before;
  std::string what;
};

struct Node {
  MistakenStore store{Mistake::kNone};
  std::array<Truth, kMaxSlots> truth;
  std::array<int8_t, kMaxSlots> used{};      // per e-mail (index of the first content with it): attempts at Astra
  std::array<Counters, kMaxSlots> purged{};  // per e-mail: what forgotten rows counted for
  int8_t resolved = 0;                       // by the operator; and superseded by another caller
  int8_t rotated = 0;                        // so many times
  bool aged = false;
  std::shared_ptr<const Step> path;
};

class Checker {
 public:
  // Without `specification` only the invariants judge, which shows that they can.
  Checker(World world, Mistake mistake, bool specification = true)
      : world_(std::move(world)), mistake_(mistake), rules_(RulesWith(mistake)), specification_(specification) {
    for (size_t c = 0; c < world_.contents.size(); ++c) {
      size_t first = c;
      while (first > 0 && world_.contents[first - 1].email == world_.contents[c].email) --first;
      for (size_t d = 0; d < c; ++d) {
        if (world_.contents[d].email == world_.contents[c].email) {
          first = d;
          break;
        }
      }
      email_of_.push_back(first);
    }
    for (const auto& [caller, id] : world_.slots) keys_.push_back({caller, Id(id)});
  }

  // Explores everything; returns what was violated first, or nothing.
  std::optional<std::string> Run(size_t most_states) {
    Node start;
    start.store = MistakenStore(mistake_);
    Push(std::move(start));
    while (!stack_.empty() && !violation_ && seen_.size() < most_states) {
      const Node node = std::move(stack_.back());
      stack_.pop_back();
      Expand(node);
    }
    if (violation_) return violation_;
    if (!stack_.empty()) return "not exhausted";
    return std::nullopt;
  }
  size_t states() const { return seen_.size(); }
  size_t steps() const { return steps_; }

 private:
  using Rows = std::vector<std::optional<Row>>;  // by slot; nothing: there is none

  size_t Slots() const { return world_.slots.size(); }
  const Key& KeyOf(size_t slot) const { return keys_[slot]; }
  bool SameCaller(size_t a, size_t b) const { return world_.slots[a].first == world_.slots[b].first; }

  bool MayLink(size_t a, size_t b) const { return world_.others || SameCaller(a, b); }

  struct Asked {
    size_t slot;
    size_t content;
    bool allow_repeat;
    int supersedes;  // request number, 0 for none
  };

  BeginRequest RequestOf(const Asked& asked, int rotated) const {
    const Content& content = world_.contents[asked.content];
    Call call{.caller = world_.slots[asked.slot].first,
              .id = world_.slots[asked.slot].second,
              .email = content.email,
              .person = content.person,
              .ip = content.ip,
              .allow_repeat = asked.allow_repeat,
              .limit = world_.limit};
    if (asked.supersedes != 0) call.supersedes = asked.supersedes;
    call.supersedes_others = world_.others;
    call.key = KeyAfter(rotated);
    for (int before = rotated; before-- > 0;) call.previous.push_back(KeyAfter(before));
    return call.request();
  }
  // The last rotation of a world leads to kKey.
  uint64_t KeyAfter(int rotated) const {
    static constexpr uint64_t kKeys[] = {kOldestKey, kOldKey, kKey};
    return kKeys[2 - world_.rotations + rotated];
  }
  // Hashing is most of the work, so each request is made once.
  const BeginRequest& Cached(const Asked& asked, int rotated) {
    const size_t at =
        (((asked.slot * 8 + asked.content) * 2 + asked.allow_repeat) * 8 + static_cast<size_t>(asked.supersedes)) * 4 +
        static_cast<size_t>(rotated);
    if (cache_.size() <= at) cache_.resize(at + 1);
    if (!cache_[at]) cache_[at] = RequestOf(asked, rotated);
    return *cache_[at];
  }

  void Violate(const Node& node, const std::string& what) {
    if (violation_) return;
    std::string text = what;
    std::vector<std::string> steps;
    for (auto step = node.path; step != nullptr; step = step->before) steps.push_back(step->what);
    for (auto it = steps.rbegin(); it != steps.rend(); ++it) text += "\n  " + *it;
    violation_ = std::move(text);
  }

  // What the contract says about this call, from the truth and the rows alone. Budgets come from the rows here.
  V Expected(const Node& node, const Rows& rows, const Asked& asked) const {
    const Truth& own = node.truth[asked.slot];
    if (own.content >= 0) {
      if (static_cast<size_t>(own.content) != asked.content) return V::kReused;
      if (own.live) return V::kInProgress;
      if (rows[asked.slot]->record.state != State::kReleased) return V::kRecorded;
    }
    const size_t email = email_of_[asked.content];
    const auto at_email = [&](size_t s) {
      return node.truth[s].content >= 0 && email_of_[static_cast<size_t>(node.truth[s].content)] == email;
    };
    const auto state = [&](size_t s) { return rows[s]->record.state; };
    std::optional<size_t> named;
    for (size_t s = 0; s < Slots(); ++s) {
      if (world_.slots[s].second == asked.supersedes && SameCaller(s, asked.slot) && at_email(s)) named = s;
    }
    if (named && state(*named) == State::kSucceeded) return V::kPersonExists;
    if (PersonSucceeded(node, rows, asked, true)) return V::kPersonExists;
    int sure = node.purged[email].confirmed;
    for (size_t s = 0; s < Slots(); ++s) sure += at_email(s) && rows[s]->record.answer.confirmed;
    if (sure >= world_.limit) return V::kExhausted;
    for (size_t s = 0; s < Slots(); ++s) {
      if (s != asked.slot && at_email(s) && node.truth[s].live) return V::kEmailBusy;
    }
    const auto open = [&](size_t s) {
      return s != asked.slot && at_email(s) && state(s) == State::kUnknown && !rows[s]->record.superseded_by;
    };
    size_t replaced = named && open(*named) ? *named : kMaxSlots;
    if (replaced == kMaxSlots && world_.others) {
      int found = 0;
      for (size_t s = 0; s < Slots(); ++s) {
        if (world_.slots[s].second != asked.supersedes || SameCaller(s, asked.slot) || !open(s)) continue;
        replaced = s;
        ++found;
      }
      if (found > 1) replaced = kMaxSlots;  // whose is meant?
    }
    if (asked.supersedes != 0 && replaced == kMaxSlots) return V::kSupersedesInvalid;
    for (size_t s = 0; s < Slots(); ++s) {
      if (open(s) && s != replaced) return V::kEmailUnresolved;
    }
    return V::kWouldGo;
  }

  // Whether this caller created the person before (`own`), or another one did.
  bool PersonSucceeded(const Node& node, const Rows& rows, const Asked& asked, bool own) const {
    const Content& person = world_.contents[asked.content];
    for (size_t s = 0; s < Slots() && !asked.allow_repeat; ++s) {
      if (s == asked.slot || SameCaller(s, asked.slot) != own || node.truth[s].content < 0) continue;
      const Content& of = world_.contents[static_cast<size_t>(node.truth[s].content)];
      if (of.email == person.email && of.person == person.person && rows[s]->record.state == State::kSucceeded) {
        return true;
      }
    }
    return false;
  }

  Rows RowsOf(const Node& node) const {
    Rows rows(Slots());
    for (Row& row : node.store.AllRows()) {
      const auto key = std::find(keys_.begin(), keys_.end(), row.record.key);
      if (key != keys_.end()) rows[static_cast<size_t>(key - keys_.begin())] = std::move(row);
    }
    return rows;
  }

  bool UnderOldKey(const Node& node, const Rows& rows) const {
    return std::any_of(rows.begin(), rows.end(),
                       [key = KeyAfter(node.rotated)](const auto& row) { return row && row->key_id != key; });
  }

  // Everything that must hold in every state.
  void Check(const Node& node, const Rows& rows) {
    std::map<Digest, Counters> sums;
    std::array<Counters, kMaxSlots> by_email = node.purged;
    std::array<int, kMaxSlots> heads{};
    for (size_t s = 0; s < Slots(); ++s) {
      const Truth& truth = node.truth[s];
      if ((truth.content >= 0) != rows[s].has_value()) return Violate(node, "a row was lost or invented");
      if (!rows[s]) continue;
      const Record& record = rows[s]->record;
      const size_t email = email_of_[static_cast<size_t>(truth.content)];
      if (truth.posts > 1) return Violate(node, "two POSTs that may have counted for one id");
      if (truth.created > 1) return Violate(node, "two intents for one id");
      if (truth.live != (record.state == State::kSending))
        return Violate(node, "SENDING without an owner, or owned and not SENDING");
      if (record.state == State::kSucceeded && truth.created != 1) return Violate(node, "SUCCEEDED without an intent");
      if (record.state == State::kFailed && truth.created != 0) return Violate(node, "FAILED with an intent");
      if (record.state == State::kReleased && truth.posts != 0) return Violate(node, "RELEASED although sent");
      if (record.state == State::kFailed && record.answer.confirmed) return Violate(node, "FAILED and confirmed");
      Counters is;
      if (record.answer.confirmed) {
        is.confirmed = 1;
      } else if (record.state != State::kReleased) {
        is.possible = 1;
      }
      for (Counters* sum : {&sums[rows[s]->email], &by_email[email]}) {
        sum->confirmed += is.confirmed;
        sum->possible += is.possible;
      }
      if (record.state == State::kSending || (record.state == State::kUnknown && !record.superseded_by)) ++heads[email];
      if (record.superseded_by) {
        bool found = false;
        for (size_t by = 0; by < Slots(); ++by) {
          if (!MayLink(by, s) || KeyOf(by).request_id != *record.superseded_by || !rows[by]) continue;
          found = found ||
                  (rows[by]->record.supersedes == record.key.request_id && rows[by]->record.state != State::kReleased &&
                   email_of_[static_cast<size_t>(node.truth[by].content)] == email);
        }
        if (!found || record.state == State::kSending || record.state == State::kReleased)
          return Violate(node, "a mark of superseding that is not true");
      }
      if (record.supersedes && record.state != State::kReleased) {
        bool known = false;
        bool marked = false;
        for (size_t of = 0; of < Slots(); ++of) {
          if (!MayLink(of, s) || KeyOf(of).request_id != *record.supersedes || !rows[of]) continue;
          known = true;
          marked = marked || rows[of]->record.superseded_by == record.key.request_id;
        }
        if (known && !marked) return Violate(node, "a superseded row without its mark");
      }
    }
    for (const auto& [email, purged] : node.store.AllPurged()) sums[email] += purged;
    for (const auto& [email, counters] : node.store.AllCounters()) {
      if (counters != sums[email]) return Violate(node, "a counter is not the sum over its rows");
      sums.erase(email);
    }
    for (const auto& [email, counters] : sums) {
      if (counters != Counters{}) return Violate(node, "rows without a counter");
    }
    for (size_t e = 0; e < world_.contents.size(); ++e) {
      const Budget budget = BudgetOf(by_email[e]);
      if (budget.used_min > node.used[e] || node.used[e] > budget.used_max)
        return Violate(node, "the budget does not hold the truth");
      if (world_.aging && by_email[e] != node.store.Count(EmailHash(e)))
        return Violate(node, "forgetting changed a counter");
      if (heads[e] > 1) return Violate(node, "two open requests for one address");
    }
    if (node.store.audit().size() != static_cast<size_t>(node.resolved))
      return Violate(node, "a deed without its entry, or an entry without its deed");
  }

  // A step may add to a row's history, never take back. Only the operator, and proof, end what was unknown.
  void CheckStep(const Rows& was, const Node& after, const Rows& is, std::optional<size_t> resolved) {
    for (size_t s = 0; s < Slots() && !violation_; ++s) {
      if (!was[s] || !is[s]) continue;
      const Record& a = was[s]->record;
      const Record& b = is[s]->record;
      if (resolved == s && a.state == State::kUnknown && b.sent >= a.sent && b.posts == a.posts) continue;
      if (b.sent < a.sent || b.posts < a.posts) Violate(after, "a row forgot that it was sent");
      if (a.state != State::kSending && a.state != State::kReleased &&
          (a.state != b.state || a.answer.user_intent_id != b.answer.user_intent_id ||
           a.answer.confirmed != b.answer.confirmed || a.posts != b.posts)) {
        Violate(after, "an ended row changed");
      }
    }
  }

  std::string Encode(const Node& node, const Rows& rows) const {
    std::string text;
    text.push_back(static_cast<char>(node.rotated * 2 + node.aged));
    for (size_t s = 0; s < Slots(); ++s) {
      const Truth& t = node.truth[s];
      text.push_back(static_cast<char>(t.content));
      text.push_back(static_cast<char>(t.posts * 16 + t.created * 4 + t.live * 2 + t.arrived));
      if (!rows[s]) continue;
      const Record& r = rows[s]->record;
      text.push_back(
          static_cast<char>(static_cast<int>(r.state) * 16 + static_cast<int>(r.sent) * 2 + r.answer.confirmed));
      text.push_back(static_cast<char>(r.posts));
      text.push_back(r.supersedes ? static_cast<char>((*r.supersedes)[15]) : '\0');
      text.push_back(r.superseded_by ? static_cast<char>((*r.superseded_by)[15]) : '\0');
      text.push_back(static_cast<char>(rows[s]->key_id));
      text.push_back(static_cast<char>(rows[s]->person[0]));
      text.push_back(static_cast<char>(rows[s]->email[0]));
      text.push_back(static_cast<char>((r.created >= At(kAge)) * 2 + (r.updated >= At(kAge))));
    }
    for (size_t e = 0; e < world_.contents.size(); ++e) {
      text.push_back(static_cast<char>(node.used[e]));
      text.push_back(static_cast<char>(node.purged[e].confirmed * 16 + node.purged[e].possible));
    }
    return text;
  }

  void Push(Node node) {
    const Rows rows = RowsOf(node);
    Push(std::move(node), rows);
  }
  void Push(Node node, const Rows& rows) {
    if (violation_) return;
    Check(node, rows);
    if (violation_ || !seen_.insert(Encode(node, rows)).second) return;
    stack_.push_back(std::move(node));
  }

  Node Next(const Node& from, std::string what) {
    ++steps_;
    Node node = from;
    node.path = std::make_shared<Step>(Step{from.path, std::move(what)});
    return node;
  }

  // `before`: the rows that the step began from.
  void Commit(const Rows& before, Node after, std::optional<size_t> resolved = std::nullopt) {
    if (absl::Status s = after.store.Commit(); !s.ok()) return Violate(after, s.ToString());
    const Rows rows = RowsOf(after);
    CheckStep(before, after, rows, resolved);
    Push(std::move(after), rows);
  }

  void Expand(const Node& node) {
    const Rows rows = RowsOf(node);
    std::vector<int> names = {0};
    for (const auto& [caller, id] : world_.slots) {
      if (std::find(names.begin(), names.end(), id) == names.end()) names.push_back(id);
    }
    for (size_t slot = 0; slot < Slots(); ++slot) {
      for (size_t content = 0; content < world_.contents.size(); ++content) {
        for (const bool allow_repeat : {false, true}) {
          for (const int supersedes : names) ExpandBegin(node, rows, {slot, content, allow_repeat, supersedes});
        }
      }
      ExpandCall(node, rows, slot);
      ExpandZombie(node, rows, slot);
      ExpandResolve(node, rows, slot);
      ExpandSettle(node, rows, slot);
    }
    ExpandCrash(node, rows);
    if (world_.aging && !node.aged) {
      Node after = Next(node, "time passes");
      after.aged = true;
      Push(std::move(after));
    }
    if (node.aged) ExpandPurge(node, rows);
    if (node.rotated < world_.rotations) {
      Node after = Next(node, "rotate");
      ++after.rotated;
      Push(std::move(after));
    }
  }

  void ExpandBegin(const Node& node, const Rows& rows, const Asked& asked) {
    if (violation_) return;
    const Truth& own = node.truth[asked.slot];
    BeginRequest request = Cached(asked, node.rotated);
    request.now = Now(node, 0);
    const int posts = rows[asked.slot] ? rows[asked.slot]->record.posts : 0;
    request.attempt_id = AttemptOf(asked.slot, posts + 1);
    // Looking first: it must write nothing, and the real call must decide the same.
    request.may_start = false;
    Node& looked = const_cast<Node&>(node);  // a look needs no copy, and whether it wrote is asked below
    const auto look = Execute(looked.store, request, rules_);  // outside a transaction: a write would fail
    const auto name = [&] {
      return "begin slot " + std::to_string(asked.slot) + " content " + std::to_string(asked.content) +
             (asked.allow_repeat ? " repeat" : "") + " supersedes " + std::to_string(asked.supersedes);
    };
    if (!look.ok()) return Violate(node, name() + ": looking failed: " + look.status().ToString());
    const V expected = Expected(node, rows, asked);
    if (specification_ && look->verdict != expected) {
      return Violate(node, name() + ": verdict " + std::to_string(static_cast<int>(look->verdict)) + " instead of " +
                               std::to_string(static_cast<int>(expected)));
    }
    if (!look->existing_intent_id.empty() && look->existing_intent_id.rfind(request.key.caller, 0) != 0) {
      return Violate(node, name() + ": told another caller's intent");
    }
    if (look->unresolved && !std::any_of(rows.begin(), rows.end(), [&](const std::optional<Row>& row) {
          return row && row->record.key == Key{request.key.caller, *look->unresolved} &&
                 row->record.state == State::kUnknown;
        })) {
      return Violate(node, name() + ": told another caller's request");
    }
    // What another caller created is not told to one who only looks: the real call hears it in place of "go".
    const bool elsewhere = look->verdict == V::kWouldGo && PersonSucceeded(node, rows, asked, false);
    const bool goes = look->verdict == V::kWouldGo && !elsewhere;
    if (goes && rows[asked.slot] && rows[asked.slot]->record.posts >= world_.most_attempts[asked.slot]) return;
    // Without a key to move to, a refused call writes nothing; and with one, it does not matter which refusal it is.
    if (!goes && !elsewhere &&
        (!node.rotated || asked.allow_repeat || asked.supersedes != 0 || !UnderOldKey(node, rows)))
      return;
    request.may_start = true;
    Node after = Next(node, goes ? name() : "touch: " + name());
    if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
    const auto answer = Execute(after.store, request, rules_);
    if (!answer.ok()) return Violate(after, answer.status().ToString());
    const V done = goes ? V::kGo : elsewhere ? V::kPersonExists : look->verdict;
    if (answer->verdict != done) return Violate(after, "looking and doing differ");
    if (elsewhere && !answer->existing_intent_id.empty()) return Violate(after, "told another caller's intent");
    if (goes) {
      if (own.live) return Violate(after, "two calls own one row");
      Truth& truth = after.truth[asked.slot];
      truth.content = static_cast<int8_t>(asked.content);
      truth.posts = static_cast<int8_t>(truth.posts + 1);
      truth.live = true;
      truth.arrived = false;
      bool anothers = false;
      const auto now = RowsOf(after);
      for (size_t s = 0; s < Slots(); ++s) {
        if (rows[s] && now[s] && !SameCaller(s, asked.slot) &&
            rows[s]->record.superseded_by != now[s]->record.superseded_by) {
          anothers = true;
        }
      }
      after.resolved = static_cast<int8_t>(node.resolved + anothers);
      if (after.store.audit().size() != static_cast<size_t>(after.resolved))
        return Violate(after, "who superseded whom is not on record");
      if (answer->budget.used_max != look->budget.used_max + 1)
        return Violate(after, "the fresh attempt is not in the budget");
    } else if (answer->budget.used_max != look->budget.used_max) {
      return Violate(after, "moving keys changed the budget");
    }
    Commit(rows, std::move(after));
  }

  void ExpandCall(const Node& node, const Rows& rows, size_t slot) {
    const Truth& truth = node.truth[slot];
    if (!truth.live || violation_) return;
    const size_t email = email_of_[static_cast<size_t>(truth.content)];
    const Key key = KeyOf(slot);
    const std::string at = " slot " + std::to_string(slot);
    if (!truth.arrived) {
      Node after = Next(node, "create at Astra" + at);
      const int times = mistake_ == Mistake::kPostsTwice ? 2 : 1;  // an HTTP library that re-sends by itself
      after.truth[slot].arrived = true;
      after.truth[slot].created = static_cast<int8_t>(truth.created + times);
      after.used[email] = static_cast<int8_t>(node.used[email] + times);
      Push(std::move(after));
    }
    // astra_counted: a rejected attempt may count at Astra or not.
    const auto end = [&](const std::string& what, FinishRequest request, bool not_sent, int astra_counted) {
      if (violation_) return;
      request.now = Now(node, 5);
      Node after = Next(node, what + at);
      after.truth[slot].live = false;
      after.truth[slot].arrived = false;
      if (not_sent) after.truth[slot].posts = static_cast<int8_t>(truth.posts - 1);
      after.used[email] = static_cast<int8_t>(node.used[email] + astra_counted);
      if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
      const auto answer = Execute(after.store, request, rules_);
      if (!answer.ok()) return Violate(after, answer.status().ToString());
      if (answer->record.state != request.state) return Violate(after, "ended otherwise than told");
      Commit(rows, std::move(after));
    };
    if (truth.arrived) {
      end("success", Succeeded(key, key.caller + "'s"), false, 0);
      end("2xx without id", Unknown(key, true), false, 0);
    } else {
      end("rejected, not counted", Failed(key), false, 0);
      end("rejected, counted", Failed(key), false, 1);
      end("not sent", Released(key), true, 0);
      end("refused", Released(key, Sent::kYes), true, 0);
      if (rows[slot]->record.posts < world_.most_attempts[slot]) {
        Node after = Next(node, "next attempt" + at);
        if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
        if (absl::Status s = Execute(after.store, NextAttemptRequest{key, AttemptOf(slot, rows[slot]->record.posts + 1),
                                                                     Sent::kYes, Now(node, 2)});
            !s.ok())
          return Violate(after, s.ToString());
        Commit(rows, std::move(after));
      }
    }
    if (mistake_ == Mistake::kReleasesBlindly) {
      end("lost, released blindly", Released(key), !truth.arrived, 0);
    } else {
      end("answer lost", Unknown(key), false, 0);
    }
  }

  // A call that lost its row (or never had it) tries to end it.
  void ExpandZombie(const Node& node, const Rows& rows, size_t slot) {
    if (node.truth[slot].live || violation_) return;
    ++steps_;
    const std::string what = "zombie ends slot " + std::to_string(slot);
    // As in ExpandResolve: tried in place and taken back.
    Node& tried = const_cast<Node&>(node);
    if (absl::Status s = tried.store.Start(); !s.ok()) return Violate(node, s.ToString());
    const auto answer = Execute(tried.store, Unknown(KeyOf(slot)), rules_);
    const bool wrote = rows[slot] && tried.store.Find(KeyOf(slot))->record.updated != rows[slot]->record.updated;
    tried.store.Rollback();
    if (answer.ok() || !IsRefusal(answer.status())) {
      return Violate(node, what + ": a row that is not SENDING was ended");
    }
    if (wrote) Violate(node, what + ": a refused end wrote");
  }

  // The operator knows the truth and says so, of every row, and never otherwise unless Astra's answer contradicts him.
  void ExpandResolve(const Node& node, const Rows& rows, size_t slot) {
    const Truth& truth = node.truth[slot];
    const bool unknown = rows[slot] && rows[slot]->record.state == State::kUnknown;
    for (const bool created : {true, false}) {
      if (violation_) return;
      const bool lie = created != (truth.created == 1);
      if (unknown && lie && !rows[slot]->record.answer.confirmed) continue;
      const std::string what =
          std::string("resolve as ") + (created ? "" : "not ") + "created slot " + std::to_string(slot);
      ResolveRequest request = created ? AsCreated(KeyOf(slot), KeyOf(slot).caller + "'s") : AsNotCreated(KeyOf(slot));
      request.now = Now(node, 8);
      ++steps_;
      // Tried in place first and taken back: most are refused, and copies are dear.
      Node& tried = const_cast<Node&>(node);
      if (absl::Status s = tried.store.Start(); !s.ok()) return Violate(node, s.ToString());
      const auto answer = Execute(tried.store, request, rules_);
      const bool wrote = tried.store.audit().size() != static_cast<size_t>(node.resolved) ||
                         (rows[slot] && tried.store.Find(KeyOf(slot))->record.updated != rows[slot]->record.updated);
      tried.store.Rollback();
      if (!answer.ok() && !IsRefusal(answer.status())) return Violate(node, answer.status().ToString());
      if (specification_ && unknown && answer.ok() == lie) {
        return Violate(node, what + (lie ? ": a lie was taken" : ": the truth was refused"));
      }
      if (!answer.ok() || !answer->changed) {
        if (wrote) return Violate(node, what + ": refused, and wrote");
        continue;
      }
      Node after = Next(node, what);
      if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
      if (const auto done = Execute(after.store, request, rules_); !done.ok())
        return Violate(after, done.status().ToString());
      ++after.resolved;
      Commit(rows, std::move(after), slot);
    }
  }

  // Of the POST with this number, of those that were begun for the id.
  static Uuid AttemptOf(size_t slot, int post) { return Id(static_cast<int>(slot + 1) * 100 + post); }

  // What must be answered to this proof about the last POST, from the truth and what is recorded.
  static SettleVerdict ExpectedOf(const Record& record, const SettleRequest& proof) {
    const bool created = proof.state == State::kSucceeded;
    if (record.state == State::kSending) return SettleVerdict::kStillRuns;
    if (record.state == State::kUnknown) {
      return record.answer.confirmed && !created ? SettleVerdict::kConflict : SettleVerdict::kSettled;
    }
    const bool same = created ? record.answer.user_intent_id == proof.answer.user_intent_id
                              : record.state == State::kFailed || record.state == State::kReleased;
    return same ? SettleVerdict::kSaysSo : SettleVerdict::kConflict;
  }

  // Proof of every kind, at any time and as often as it likes to come, about the last POST and about an earlier one. It
  // is never untrue, unless what is recorded shows that: then it must change nothing.
  void ExpandSettle(const Node& node, const Rows& rows, size_t slot) {
    if (!rows[slot]) return;
    const Key key = KeyOf(slot);
    const int posts = rows[slot]->record.posts;
    const std::string intent = key.caller + "'s";
    for (SettleRequest proof :
         {ProofOf(key, intent), ProofOf(key, "another's"), ProofOfNone(key), ProofOfNone(key, State::kReleased)}) {
      proof.attempt_id = AttemptOf(slot, posts);
      proof.now = Now(node, 8);
      Settle(node, rows, slot, proof);
      proof.attempt_id = AttemptOf(slot, posts - 1);
      Settle(node, rows, slot, proof);
    }
  }

  void Settle(const Node& node, const Rows& rows, size_t slot, const SettleRequest& proof) {
    if (violation_) return;
    const Truth& truth = node.truth[slot];
    const Record& record = rows[slot]->record;
    const bool last = proof.attempt_id == record.attempt_id;
    const bool created = proof.state == State::kSucceeded;
    const bool lie =
        created ? truth.created != 1 || proof.answer.user_intent_id != proof.key.caller + "'s" : truth.created != 0;
    if (last && lie && record.state == State::kUnknown && (created || !record.answer.confirmed)) return;
    const std::string what = "proof of state " + std::to_string(static_cast<int>(proof.state)) +
                             (last ? "" : ", of an earlier POST,") + " slot " + std::to_string(slot);
    ++steps_;
    // As in ExpandResolve: tried in place first and taken back.
    Node& tried = const_cast<Node&>(node);
    if (absl::Status s = tried.store.Start(); !s.ok()) return Violate(node, s.ToString());
    const auto answer = Execute(tried.store, proof, rules_);
    const bool wrote = tried.store.audit().size() != static_cast<size_t>(node.resolved) ||
                       tried.store.Find(proof.key)->record.updated != record.updated;
    const bool marked = !tried.store.conflicts().empty();
    tried.store.Rollback();
    if (!answer.ok()) {
      if (!absl::IsNotFound(answer.status()) || last || wrote || marked) Violate(node, what + ": refused, or wrote");
      return;
    }
    if (specification_ && (!last || answer->verdict != ExpectedOf(record, proof))) {
      return Violate(node, what + ": verdict " + std::to_string(static_cast<int>(answer->verdict)));
    }
    if (marked != (answer->verdict == SettleVerdict::kConflict)) return Violate(node, what + ": marked, or not");
    if (answer->verdict != SettleVerdict::kSettled) {
      if (wrote) Violate(node, what + ": settles nothing, and wrote");
      return;
    }
    // Whether a rejected attempt counts is not known.
    for (const int counted : {0, 1}) {
      if (counted == 1 && proof.state != State::kFailed) continue;
      Node after = Next(node, what);
      if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
      if (const auto done = Execute(after.store, proof, rules_); !done.ok())
        return Violate(after, done.status().ToString());
      ++after.resolved;
      Truth& now = after.truth[slot];
      if (proof.state == State::kReleased && last) now.posts = static_cast<int8_t>(truth.posts - 1);
      const size_t email = email_of_[static_cast<size_t>(truth.content)];
      after.used[email] = static_cast<int8_t>(node.used[email] + counted);
      Commit(rows, std::move(after), slot);
    }
  }

  // Forgotten may be what ended, or was released, long ago and is linked to nothing that is still open; and nothing
  // else is.
  void ExpandPurge(const Node& node, const Rows& rows) {
    if (violation_) return;
    Node after = Next(node, "purge");
    const auto ended = [](const Record& r) { return r.state == State::kSucceeded || r.state == State::kFailed; };
    for (size_t s = 0; s < Slots(); ++s) {
      if (!rows[s] || rows[s]->record.updated >= At(kAge)) continue;
      const Record& record = rows[s]->record;
      const bool released = record.state == State::kReleased;
      if (!ended(record) && !released) continue;
      const bool needed = std::any_of(rows.begin(), rows.end(), [&](const std::optional<Row>& row) {
        return row && row->record.key.caller == record.key.caller && !ended(row->record) &&
               (row->record.superseded_by == record.key.request_id ||
                record.superseded_by == row->record.key.request_id);
      });
      if (needed) continue;
      const size_t email = email_of_[static_cast<size_t>(node.truth[s].content)];
      if (!released) after.purged[email] += record.answer.confirmed ? Counters{1, 0} : Counters{0, 1};
      after.truth[s] = Truth{};
    }
    if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
    while (true) {
      const auto answer = Execute(after.store, PurgeRequest{At(kAge), 2, At(kAge)}, rules_);
      if (!answer.ok()) return Violate(after, answer.status().ToString());
      if (answer->seen == 0) break;
    }
    Commit(rows, std::move(after));
  }

  static absl::Time Now(const Node& node, int64_t second) { return At((node.aged ? kAge : 0) + second); }
  Digest EmailHash(size_t content) const {
    const Content& c = world_.contents[content];
    return Prints(kKey, c.email, c.person, c.ip).email;
  }

  void ExpandCrash(const Node& node, const Rows& rows) {
    bool any = false;
    for (size_t s = 0; s < Slots(); ++s) any = any || node.truth[s].live;
    if (!any || violation_) return;
    Node after = Next(node, "crash and recover");
    if (absl::Status s = after.store.Start(); !s.ok()) return Violate(after, s.ToString());
    const auto recovered = Execute(after.store, RecoverRequest{19, Now(node, 7), 100}, rules_);
    if (!recovered.ok()) return Violate(after, recovered.status().ToString());
    for (Truth& truth : after.truth) truth.live = truth.arrived = false;
    Commit(rows, std::move(after));
  }

  const World world_;
  const Mistake mistake_;
  const Rules rules_;
  const bool specification_;
  std::vector<size_t> email_of_;
  std::vector<Key> keys_;  // by slot
  std::vector<std::optional<BeginRequest>> cache_;
  absl::flat_hash_set<std::string> seen_;
  std::vector<Node> stack_;
  size_t steps_ = 0;
  std::optional<std::string> violation_;
};

// Three requests of two callers, the same id once in each caller's name; one address with two persons, and another one.
World Wide() {
  return {
      "wide",
      {{"one", 1}, {"one", 2}, {"two", 1}},
      {{"a@example.com", "ann", "8.8.8.8"}, {"a@example.com", "bob", "8.8.8.8"}, {"b@example.com", "ann", "8.8.8.8"}},
      2,
      0,
      {2, 1, 1}};
}

// Chains of superseding: three requests of one caller for one address, a stranger beside them.
World Chains() {
  return {"chains",    {{"one", 1}, {"one", 2}, {"one", 3}, {"two", 1}}, {{"a@example.com", "ann", "8.8.8.8"}}, 3, 0,
          {2, 2, 1, 1}};
}

World Rotating() {
  return {"rotating",
          {{"one", 1}, {"one", 2}, {"two", 1}},
          {{"a@example.com", "ann", "8.8.8.8"}, {"a@example.com", "ann", "8.8.4.4"}},
          2,
          1,
          {2, 1, 1}};
}

// Three keys: rows under each of them at once.
World RotatingTwice() {
  return {"rotating twice", {{"one", 1}, {"one", 2}, {"two", 1}}, {{"a@example.com", "ann", "8.8.8.8"}}, 2, 2,
          {1, 1, 1}};
}

// Forgetting, and ids that begin a second life. Superseding in one caller's name, a stranger beside.
World Aging() {
  return {"aging", {{"one", 1}, {"one", 2}, {"two", 1}}, {{"a@example.com", "ann", "8.8.8.8"}}, 2, 0, {1, 1, 1}, true};
}

// Callers that may supersede each other's requests; two of them used one id.
World Others() {
  return {"others",
          {{"one", 1}, {"two", 2}, {"three", 1}, {"two", 3}},
          {{"a@example.com", "ann", "8.8.8.8"}},
          3,
          0,
          {1, 1, 1, 1},
          false,
          true};
}

// A sanitizer looks for faults of the code, which the nearest states show; all of them would take an hour with it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kAllStates = false;
#else
constexpr bool kAllStates = true;
#endif
constexpr size_t kMostStates = kAllStates ? 5'000'000 : 60'000;

size_t Explore(const World& world) {
  Checker checker(world, Mistake::kNone);
  const std::optional<std::string> violation = checker.Run(kMostStates);
  EXPECT_TRUE(!violation || (!kAllStates && *violation == "not exhausted")) << *violation;
  std::printf("%s: %zu states, %zu steps\n", world.name.c_str(), checker.states(), checker.steps());
  return checker.states();
}

TEST(ModelTest, EveryHistoryKeepsThePromise) {
  const size_t states =
      Explore(RotatingTwice()) + Explore(Rotating()) + Explore(Chains()) + Explore(Wide()) + Explore(Aging());
  EXPECT_GE(states, 100'000u);
}

TEST(ModelTest, SupersedingOthersKeepsIt) { EXPECT_GE(Explore(Others()), 1'000u); }

void ExpectCaught(Mistake mistake, bool specification) {
  // Most are seen soon, each in its world, and the others early in the largest one.
  for (const size_t most_states : {size_t{5'000}, size_t{60'000}, kMostStates}) {
    for (const World& world : {Rotating(), Aging(), Wide(), Chains()}) {
      Checker checker(world, mistake, specification);
      const auto violation = checker.Run(most_states);
      if (!violation || *violation == "not exhausted") continue;
      std::printf("%s, after %zu states: %s\n", world.name.c_str(), checker.states(), violation->c_str());
      return;
    }
  }
  ADD_FAILURE() << "nobody noticed";
}

class MistakeTest : public testing::TestWithParam<int> {};
TEST_P(MistakeTest, IsCaught) { ExpectCaught(static_cast<Mistake>(GetParam()), true); }
INSTANTIATE_TEST_SUITE_P(Model, MistakeTest, testing::Range(1, static_cast<int>(kLastMistake) + 1));

// These break the promise itself, so they must be seen without knowing what the right decision would have been.
class GraveMistakeTest : public testing::TestWithParam<Mistake> {};
TEST_P(GraveMistakeTest, IsCaughtByTheInvariantsAlone) { ExpectCaught(GetParam(), false); }
INSTANTIATE_TEST_SUITE_P(Model, GraveMistakeTest,
                         testing::Values(Mistake::kSendsAgainFromFailed, Mistake::kSendsAgainFromUnknown,
                                         Mistake::kSendsAgainFromSending, Mistake::kIgnoresBusy,
                                         Mistake::kIgnoresUnresolved, Mistake::kSupersedesTwice, Mistake::kEndsTwice,
                                         Mistake::kCrashReleases, Mistake::kCrashFails, Mistake::kReleaseKeepsMark,
                                         Mistake::kUnknownNotCounted, Mistake::kPurgesEndedRows,
                                         Mistake::kReleasesBlindly, Mistake::kPostsTwice, Mistake::kResolveReopens,
                                         Mistake::kResolvesRunning, Mistake::kResolvesAgainstAstra,
                                         Mistake::kResolvesEnded, Mistake::kSettlesRunning, Mistake::kSettlesEnded,
                                         Mistake::kSettlesByAnyPost, Mistake::kPurgesYoung, Mistake::kPurgesUnknown,
                                         Mistake::kPurgesNeeded, Mistake::kPurgeForgetsAttempts));

}  // namespace
}  // namespace userintent::ledger
