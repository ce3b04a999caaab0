// A check of how replicas share a ledger: every order of what three of them, their callers, the database, its standby
// and Astra may do, up to the bounds below; the nearest states first, and as many as are asked for. What is decided is
// decided by the real rules (ledger::Decide); what a transaction, a session, a lease, a fence and a sweep are is
// modelled as docs/decisions/0019 says. The checker itself is checked: each seeded mistake must be caught.
//
// Two requests of one caller about one address. A Begin is a Load (of what is on the standby, which is what others can
// see), a decision, and a transaction that is on its way until the database has taken it, or never will; what it took
// is on the standby later, and confirmed later still, or never. Only then the lease is looked at, and the POST sent,
// however late: a process may be frozen between the two. Astra processes a POST or proves that it did not; its answer
// is heard or not. A Finish goes as a Begin does. A process may be killed, a confirmation lost, the standby promoted.
//
// Times are orders: a lease may end at any time, a fence comes only after the lease it fences (F > L), a sweep only
// after every exchange that began within the lease (the quiet time).
//
//   REPLICAS_MODEL_STATES=N   as many states at most (the default is what the test takes by itself)
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/ledger/decide.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

enum class Mistake {
  kNone,
  kNoVersionCheck,
  kNoFence,
  kLooksBeforeTheSessionIsClosed,
  kSendsFromALookUp,
  kSweepsToReleased,
  kFenceBeforeTheLease,
  kLeaseNotLookedAt,
  kSweepsTooEarly,
  kConfirmedBeforeTheStandby,
  kSweepsTheLiving,
};

constexpr int kReplicas = 3, kIds = 2, kAttempts = 4, kEpochs = 5;

struct Bounds {
  int attempts = 3;  // Begins that say go
  int epochs = 4;    // the first three are the replicas'
  int kills = 1;
  int lost = 1;  // confirmations, or transactions that never arrive
  int failovers = 1;
};

// With numbers that have a sign.
template <typename T, int kSize>
struct Few {
  T items[kSize] = {};
  T& operator[](int at) { return items[at]; }
  const T& operator[](int at) const { return items[at]; }
  T* begin() { return items; }
  T* end() { return items + kSize; }
  const T* begin() const { return items; }
  const T* end() const { return items + kSize; }
};

// All bytes, so that a state is its own key.
struct RowState {
  uint8_t state = 0;  // 0: there is none
  uint8_t sent = 0, owner = 0, attempt = 0, confirmed = 0;
};
struct Database {
  Few<RowState, kIds> rows{};
  uint8_t version = 0;  // of the address
  uint8_t confirmed = 0, possible = 0;
  Few<uint8_t, kEpochs + 1> ended{}, swept{}, session{};  // by epoch
};
// A transaction that was sent and was neither taken nor refused yet.
struct OnItsWay {
  uint8_t there = 0, epoch = 0, session = 0, version = 0, begins = 0, id = 0;
  RowState row;
  uint8_t confirmed = 0, possible = 0;  // of the address afterwards
};
enum Phase : uint8_t {
  kFree,
  kBeginning,  // its transaction is on its way, or taken
  kInDoubt,    // it was not confirmed
  kClosed,     // and its session is closed
  kGo,         // it was confirmed
  kLooked,     // the lease held
  kWaiting,    // the POST is sent
  kEnding,     // the outcome is to be written
  kFinishing,  // its transaction is on its way, or taken
};
struct Replica {
  uint8_t alive = 1, epoch = 0, lease = 1;
  uint8_t phase = kFree, id = 0, attempt = 0, owner = 0, outcome = 0, sent = 0, late = 0;
  uint8_t taken = 0;   // its transaction was
  uint8_t looked = 0;  // the lease held when it was looked at; nothing that happens depends on this
  OnItsWay way;
};
struct World {
  Database primary, standby;
  Few<Replica, kReplicas> replicas;
  Few<uint8_t, kAttempts + 1> of{};     // the id of an attempt
  Few<uint8_t, kAttempts + 1> astra{};  // 0: nothing came, 1: it came, 2: created, 3: refused unprocessed
  Few<uint8_t, kIds> heard{};           // the attempt that a caller heard was created
  uint8_t attempts = 0, epochs = 0, kills = 0, lost = 0, failovers = 0;
};
static_assert(std::has_unique_object_representations_v<World>);

bool Same(const Database& a, const Database& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

Uuid AttemptId(int attempt) { return Id(1000 + attempt); }

class Model {
 public:
  Model(Mistake mistake, const Bounds& bounds, size_t most) : mistake_(mistake), bounds_(bounds), most_(most) {
    if (mistake == Mistake::kSweepsToReleased) rules_.state_after_crash = State::kReleased;
  }

  // What is wrong, with the shortest way there; nothing: all is well.
  std::optional<std::string> Run() {
    World world;
    for (int r = 0; r < kReplicas; ++r) world.replicas[r].epoch = static_cast<uint8_t>(r + 1);
    world.epochs = kReplicas;
    Meet(world, {0, "", 0});
    while (!wrong_ && !frontier_.empty()) {
      const auto [next, at] = std::move(frontier_.front());
      frontier_.pop_front();
      at_ = at;
      Look(next);
    }
    return wrong_;
  }
  size_t states() const { return seen_.size(); }
  bool exhausted() const { return seen_.size() < most_; }

 private:
  // ---- the search

  // How a state was reached first.
  struct Step {
    uint32_t from;
    const char* what;
    int number;
  };

  void Meet(const World& world, const Step& step) {
    if (wrong_ || seen_.size() >= most_ || !seen_.insert(KeyOf(world)).second) return;
    steps_.push_back(step);
    if (const std::string why = Broken(world); !why.empty()) return Fail(why, steps_.size() - 1);
    frontier_.emplace_back(world, static_cast<uint32_t>(steps_.size() - 1));
  }

  void Look(const World& world) {
    for (int r = 0; r < kReplicas; ++r) Steps(world, r);
    for (int attempt = 1; attempt <= world.attempts; ++attempt) {
      if (world.astra[attempt] != 1) continue;
      Try("Astra creates, attempt ", attempt, world, [&](World& w) { w.astra[attempt] = 2; });
      Try("Astra refuses, attempt ", attempt, world, [&](World& w) { w.astra[attempt] = 3; });
    }
    if (!Same(world.primary, world.standby)) {
      Try("the standby follows, ", 0, world, [](World& w) { w.standby = w.primary; });
    }
    if (world.failovers < bounds_.failovers) {
      Try("the standby is promoted, ", 0, world, [](World& w) {
        ++w.failovers;
        w.primary = w.standby;
        // Every connection is lost, and with it what was on its way.
        for (Replica& r : w.replicas) {
          r.way = OnItsWay{};
          Unanswered(r);
        }
      });
    }
  }

  template <typename Change>
  void Try(const char* what, int number, const World& from, Change change) {
    if (wrong_) return;
    World next = from;
    change(next);
    Meet(next, {at_, what, number});
  }

  void Fail(std::string_view why, size_t at) {
    if (wrong_) return;
    std::string way;
    for (; at != 0; at = steps_[at].from) way = absl::StrCat("\n  ", steps_[at].what, steps_[at].number, way);
    wrong_ = absl::StrCat(std::string(why), way);
  }

  static std::pair<size_t, size_t> KeyOf(const World& world) {
    const std::string_view bytes(reinterpret_cast<const char*>(&world), sizeof world);
    return {absl::HashOf(bytes), absl::HashOf(bytes, 1)};
  }

  // ---- what must hold in every state

  std::string Broken(const World& w) const {
    int in_flight = 0, created = 0;
    Few<int, kIds> created_of{};
    for (int attempt = 1; attempt <= w.attempts; ++attempt) {
      in_flight += w.astra[attempt] == 1 ? 1 : 0;
      created += w.astra[attempt] == 2 ? 1 : 0;
      created_of[w.of[attempt]] += w.astra[attempt] == 2 ? 1 : 0;
    }
    for (const int one : created_of) {
      if (one > 1) return "a request created two intents";
    }
    if (in_flight > 1) return "two POSTs of one address are under way";
    if (created > w.standby.confirmed + w.standby.possible) return "an attempt is not counted";
    for (int id = 0; id < kIds; ++id) {
      const RowState& row = w.standby.rows[id];
      if (w.heard[id] != 0 && (row.state != 2 || row.attempt != w.heard[id]))
        return "an outcome that was heard is gone";
      if (row.state != 1) continue;
      if (w.standby.swept[row.owner] != 0) return "a request of a replica that was swept is still SENDING";
      if (!Runs(w, row)) return "a request is SENDING, and its replica does not run it";
    }
    return "";
  }
  // Somebody will end this row: its owner, or whoever sweeps.
  static bool Runs(const World& w, const RowState& row) {
    for (const Replica& r : w.replicas) {
      if (r.alive == 0) continue;
      if (r.phase != kFree && r.owner == row.owner && r.attempt == row.attempt) return true;
      // It beats under this epoch, so nobody sweeps it.
      if (r.epoch == row.owner && w.standby.ended[row.owner] == 0) return false;
    }
    return true;
  }

  // ---- what may happen

  void Steps(const World& w, int r) {
    const Replica& me = w.replicas[r];
    if (me.way.there != 0) StepsOfTransaction(w, r);  // whether its replica lives or not
    if (me.alive == 0) {
      if (w.epochs < bounds_.epochs) Try("starts again, replica ", r, w, [&](World& n) { Register(n, n.replicas[r]); });
      return;
    }
    if (w.kills < bounds_.kills) {
      Try("is killed, replica ", r, w, [&](World& n) {
        ++n.kills;
        Replica dead;
        dead.alive = dead.lease = 0;
        dead.way = n.replicas[r].way;
        n.replicas[r] = dead;
      });
    }
    StepsOfLease(w, r);
    StepsOfCall(w, r);
  }

  static void Register(World& w, Replica& replica) {
    replica.alive = replica.lease = 1;
    replica.epoch = ++w.epochs;
  }

  void StepsOfLease(const World& w, int r) {
    const Replica& me = w.replicas[r];
    if (me.lease != 0) Try("its lease ends, replica ", r, w, [&](World& n) { n.replicas[r].lease = 0; });
    if (w.standby.ended[me.epoch] != 0) {
      if (w.epochs < bounds_.epochs) {
        Try("goes on under another epoch, replica ", r, w, [&](World& n) { Register(n, n.replicas[r]); });
      }
    } else if (me.lease == 0) {
      Try("beats, replica ", r, w, [&](World& n) { n.replicas[r].lease = 1; });
    }
    // What one of them does to others, all may do; which of them does not matter.
    if (r != FirstAlive(w)) return;
    for (uint8_t epoch = 1; epoch <= w.epochs; ++epoch) {
      if (epoch == me.epoch || !Same(w.primary, w.standby)) continue;
      if (w.primary.ended[epoch] == 0 && MayFence(w, epoch)) {
        Try("is fenced, epoch ", epoch, w, [&](World& n) {
          n.primary.ended[epoch] = 1;
          n.standby = n.primary;
        });
      }
      const bool over = w.primary.ended[epoch] != 0 || mistake_ == Mistake::kSweepsTheLiving;
      if (over && w.primary.swept[epoch] == 0 && IsQuiet(w, epoch)) {
        Try("is swept, epoch ", epoch, w, [&](World& n) { Sweep(n, epoch); });
      }
    }
  }
  static int FirstAlive(const World& w) {
    for (int r = 0; r < kReplicas; ++r) {
      if (w.replicas[r].alive != 0) return r;
    }
    return -1;
  }
  // F > L: its beat was the same for longer than its lease lasts.
  bool MayFence(const World& w, int epoch) const {
    for (const Replica& r : w.replicas) {
      if (r.alive == 0 || r.epoch != epoch) continue;
      return r.lease == 0 || mistake_ == Mistake::kFenceBeforeTheLease;
    }
    return true;
  }
  // Every exchange that began within the lease has ended, by its answer or its time-out, and so has its look.
  bool IsQuiet(const World& w, int epoch) const {
    if (mistake_ == Mistake::kSweepsTooEarly) return true;
    return std::none_of(w.replicas.begin(), w.replicas.end(), [epoch](const Replica& r) {
      return r.alive != 0 && r.owner == epoch && r.phase == kWaiting && r.late == 0;
    });
  }
  void Sweep(World& w, uint8_t epoch) {
    std::vector<Row> sending;
    for (int id = 0; id < kIds; ++id) {
      if (w.primary.rows[id].state == 1 && w.primary.rows[id].owner == epoch) sending.push_back(RowOf(w.primary, id));
    }
    if (!sending.empty()) {
      const auto decision = Decide(std::move(sending), RecoverRequest{19, At(9)}, rules_);
      for (const RowChange& change : decision.changes.rows) Put(w.primary, change.row);
      for (const Changes::Count& count : decision.changes.counts) Add(w.primary, count.delta);
      ++w.primary.version;
    }
    if (w.primary.ended[epoch] != 0) w.primary.swept[epoch] = 1;
    w.standby = w.primary;
  }

  void StepsOfTransaction(const World& w, int r) {
    // What another one has committed is locked until the standby has it.
    const bool own =
        w.primary.rows[w.replicas[r].way.id].owner == w.replicas[r].way.epoch && w.replicas[r].way.begins == 0;
    if (own || Same(w.primary, w.standby))
      Try("its transaction is run, replica ", r, w, [&](World& n) { Take(n, n.replicas[r]); });
    if (w.lost < bounds_.lost) {
      if (w.replicas[r].phase == kBeginning) {
        Try("its connection is lost before its transaction, replica ", r, w, [&](World& n) {
          ++n.lost;
          Unanswered(n.replicas[r]);
        });
      }
      Try("its transaction never arrives, replica ", r, w, [&](World& n) {
        ++n.lost;
        n.replicas[r].way = OnItsWay{};
        Unanswered(n.replicas[r]);
      });
    }
  }
  // By the database, whatever became of who sent it.
  void Take(World& w, Replica& me) {
    const OnItsWay way = std::exchange(me.way, OnItsWay{});
    const bool open = w.primary.ended[way.epoch] == 0 && w.primary.session[way.epoch] == way.session;
    const bool fenced = way.begins != 0 && !open && mistake_ != Mistake::kNoFence;
    const bool late = way.version != w.primary.version && mistake_ != Mistake::kNoVersionCheck;
    // A row of the same id that is there already: the key is unique, whatever the version says.
    const bool twice = way.begins != 0 && w.primary.rows[way.id].state != 0 && w.primary.rows[way.id].state != 5;
    if (fenced || late || twice) {
      // Refused: nothing was committed, and the replica hears so, if it listens.
      if (me.phase == kBeginning) me.phase = kFree;
      if (me.phase == kFinishing) me.phase = kEnding;
      return;
    }
    w.primary.rows[way.id] = way.row;
    w.primary.confirmed = way.confirmed;
    w.primary.possible = way.possible;
    ++w.primary.version;
    me.taken = me.phase == kBeginning || me.phase == kFinishing ? 1 : 0;
  }
  static void Unanswered(Replica& me) {
    if (me.phase == kBeginning) me.phase = kInDoubt;
    if (me.phase == kFinishing) me.phase = kEnding;  // it is written again
    me.taken = 0;
  }

  void StepsOfCall(const World& w, int r) {
    const Replica& me = w.replicas[r];
    switch (me.phase) {
      case kFree:
        if (me.lease == 0 || w.attempts >= bounds_.attempts || me.way.there != 0) return;
        for (int id = 0; id < kIds; ++id) Begin(w, r, id);
        return;
      case kBeginning:
      case kFinishing:
        return Confirm(w, r);
      case kInDoubt:
        if (mistake_ == Mistake::kLooksBeforeTheSessionIsClosed) return LookUp(w, r);
        // It waits for a transaction that is being run; one that comes later finds the session closed.
        Try("closes the session in doubt, replica ", r, w, [&](World& n) {
          ++n.primary.session[n.replicas[r].owner];
          n.replicas[r].phase = kClosed;
          n.replicas[r].taken = 0;
        });
        return;
      case kClosed:
        return LookUp(w, r);
      case kGo:
        if (me.lease != 0 && me.epoch == me.owner) {
          Try("looks at its lease, replica ", r, w, [&](World& n) {
            n.replicas[r].phase = kLooked;
            n.replicas[r].looked = 1;
          });
        } else if (mistake_ == Mistake::kLeaseNotLookedAt) {
          Try("does not look at its lease, replica ", r, w, [&](World& n) { n.replicas[r].phase = kLooked; });
        } else {
          Try("sends nothing, replica ", r, w, [&](World& n) { End(n.replicas[r], State::kReleased, Sent::kNo); });
        }
        return;
      case kLooked:
        return Send(w, r);
      case kWaiting:
        return Hear(w, r);
      case kEnding:
        if (me.way.there == 0) Finish(w, r);
        return;
      default:
        return;
    }
  }

  void Begin(const World& w, int r, int id) {
    const Replica& me = w.replicas[r];
    BeginRequest request = CallOf(id, w.attempts + 1).request();
    request.owner = me.epoch;
    View view = ViewOf(w.standby, id);
    const auto decision = Decide(view, request, rules_);
    if (decision.answer.verdict != BeginVerdict::kGo) return;
    Try(id == 0 ? "begins the first id, replica " : "begins the second id, replica ", r, w, [&](World& n) {
      Replica& mine = n.replicas[r];
      mine.phase = kBeginning;
      mine.id = static_cast<uint8_t>(id);
      mine.attempt = ++n.attempts;
      mine.owner = mine.epoch;
      mine.outcome = mine.sent = mine.late = mine.taken = mine.looked = 0;
      n.of[mine.attempt] = mine.id;
      mine.way = WayOf(n.standby, mine, decision.changes, true);
    });
  }
  // The database says that it is committed, once the standby has it; or nobody hears it say so.
  void Confirm(const World& w, int r) {
    const Replica& me = w.replicas[r];
    if (me.taken == 0) return;
    if (Same(w.primary, w.standby) || mistake_ == Mistake::kConfirmedBeforeTheStandby) {
      Try("is told that it is committed, replica ", r, w, [&](World& n) {
        Replica& mine = n.replicas[r];
        mine.taken = 0;
        if (mine.phase == kBeginning) {
          mine.phase = kGo;
        } else {
          if (mine.outcome == 2) n.heard[mine.id] = mine.attempt;
          mine.phase = kFree;
        }
      });
    }
    if (w.lost < bounds_.lost) {
      Try("is not told that it is committed, replica ", r, w, [&](World& n) {
        ++n.lost;
        Unanswered(n.replicas[r]);
      });
    }
  }
  // May see what is on this server only.
  void LookUp(const World& w, int r) {
    const Replica& me = w.replicas[r];
    const RowState& row = w.primary.rows[me.id];
    const bool there = row.attempt == me.attempt && (row.state == 1 || row.state == 4);
    Try(there ? "finds its row, replica " : "finds no row, replica ", r, w, [&](World& n) {
      Replica& mine = n.replicas[r];
      if (!there) {
        mine.phase = kFree;
      } else if (mistake_ == Mistake::kSendsFromALookUp && row.state == 1) {
        mine.phase = kGo;
      } else {
        End(mine, State::kReleased, Sent::kNo);
      }
    });
  }
  void Send(const World& w, int r) {
    const Replica& me = w.replicas[r];
    // Only one that was frozen since it looked sends what others have given up.
    const RowState& row = w.standby.rows[me.id];
    const bool given_up = row.state != 1 || row.attempt != me.attempt;
    if (given_up && me.lease != 0 && me.epoch == me.owner)
      return Fail("within its lease, a replica sends what was given up", at_);
    if (given_up && me.looked == 0) return Fail("without a look at the lease, a replica sends what was given up", at_);
    Try("sends, replica ", r, w, [&](World& n) {
      Replica& mine = n.replicas[r];
      mine.phase = kWaiting;
      mine.late = mine.lease == 0 || mine.epoch != mine.owner ? 1 : 0;
      n.astra[mine.attempt] = 1;
    });
  }
  void Hear(const World& w, int r) {
    const Replica& me = w.replicas[r];
    if (w.astra[me.attempt] == 2) {
      Try("hears that it is created, replica ", r, w,
          [&](World& n) { End(n.replicas[r], State::kSucceeded, Sent::kYes); });
    } else if (w.astra[me.attempt] == 3) {
      Try("hears that it was not processed, replica ", r, w,
          [&](World& n) { End(n.replicas[r], State::kReleased, Sent::kYes); });
    }
    Try("hears nothing in time, replica ", r, w, [&](World& n) { End(n.replicas[r], State::kUnknown, Sent::kMaybe); });
  }
  static void End(Replica& me, State outcome, Sent sent) {
    me.phase = kEnding;
    me.outcome = static_cast<uint8_t>(outcome);
    me.sent = static_cast<uint8_t>(sent);
    me.taken = 0;
  }
  void Finish(const World& w, int r) {
    const Replica& me = w.replicas[r];
    const Key key = CallOf(me.id, me.attempt).key_of();
    FinishRequest request = me.outcome == 2   ? Succeeded(key)
                            : me.outcome == 4 ? Unknown(key)
                                              : Released(key, static_cast<Sent>(me.sent));
    request.owner = me.owner;
    // Its own row, which it knows from its Begin, or from the look-up that found it on this server.
    View view;
    const RowState& row = w.primary.rows[me.id];
    if (row.state != 0 && row.attempt == me.attempt) view.own = RowOf(w.primary, me.id);
    view.counters = {w.primary.confirmed, w.primary.possible};
    auto decision = Decide(std::move(view), request, rules_);
    if (decision.refusal != Refusal::kNone) {
      if (!Same(w.primary, w.standby)) return;  // others' changes are seen when the standby has them
      // Ended already: by this replica before, or by somebody who knew better.
      Try("has nothing to end, replica ", r, w, [&](World& n) {
        Replica& mine = n.replicas[r];
        if (mine.outcome == 2 && row.state == 2 && row.attempt == mine.attempt) n.heard[mine.id] = mine.attempt;
        mine.phase = kFree;
      });
      return;
    }
    Try("ends its row, replica ", r, w, [&](World& n) {
      Replica& mine = n.replicas[r];
      mine.phase = kFinishing;
      mine.way = WayOf(n.primary, mine, decision.changes, false);
    });
  }

  // ---- between the real rules and the model

  static Call CallOf(int id, int attempt) {
    return {.id = id + 1, .allow_repeat = true, .limit = 3, .attempt = 1000 + attempt, .at = id};
  }
  static Row RowOf(const Database& database, int id) {
    const RowState& state = database.rows[id];
    const BeginRequest request = CallOf(id, state.attempt).request();
    Row row;
    row.record.key = request.key;
    row.record.state = static_cast<State>(state.state);
    row.record.sent = static_cast<Sent>(state.sent);
    row.record.attempt_id = AttemptId(state.attempt);
    row.record.posts = 1;
    row.record.created = row.record.updated = At(id);
    row.record.answer.confirmed = state.confirmed != 0;
    if (row.record.state == State::kSucceeded) row.record.answer.user_intent_id = "intent-1";
    row.key_id = request.current.key_id;
    row.content = request.current.content;
    row.person = request.current.person;
    row.email = request.current.email;
    row.handle = id + 1;
    row.owner = state.owner;
    return row;
  }
  static RowState StateOf(const Row& row) {
    RowState state;
    state.state = static_cast<uint8_t>(row.record.state);
    state.sent = static_cast<uint8_t>(row.record.sent);
    state.owner = static_cast<uint8_t>(row.owner);
    state.confirmed = row.record.answer.confirmed ? 1 : 0;
    for (uint8_t attempt = 1; attempt <= kAttempts; ++attempt) {
      if (row.record.attempt_id == AttemptId(attempt)) state.attempt = attempt;
    }
    return state;
  }
  static int IdOf(const Row& row) { return row.record.key == CallOf(0, 1).key_of() ? 0 : 1; }
  static void Put(Database& database, const Row& row) { database.rows[IdOf(row)] = StateOf(row); }
  static void Add(Database& database, const Counters& delta) {
    database.confirmed = static_cast<uint8_t>(database.confirmed + delta.confirmed);
    database.possible = static_cast<uint8_t>(database.possible + delta.possible);
  }
  static View ViewOf(const Database& database, int id) {
    View view;
    view.counters = {database.confirmed, database.possible};
    for (int one = 0; one < kIds; ++one) {
      const RowState& row = database.rows[one];
      if (row.state == 0) continue;
      if (one == id) view.own = RowOf(database, one);
      if (row.state == 1 || row.state == 4) view.open.push_back(RowOf(database, one));
      if (row.state == 2 && (!view.person || one == id)) view.person = RowOf(database, one);
    }
    return view;
  }
  // The transaction that writes these changes, guarded by what was loaded.
  static OnItsWay WayOf(const Database& loaded, const Replica& me, const Changes& changes, bool begins) {
    OnItsWay way;
    way.there = 1;
    way.epoch = me.owner;
    way.session = loaded.session[me.owner];
    way.version = loaded.version;
    way.begins = begins ? 1 : 0;
    way.id = me.id;
    Database after = loaded;
    for (const Changes::Count& count : changes.counts) Add(after, count.delta);
    for (const RowChange& change : changes.rows) Put(after, change.row);
    way.row = after.rows[me.id];
    way.confirmed = after.confirmed;
    way.possible = after.possible;
    return way;
  }

  const Mistake mistake_;
  const Bounds bounds_;
  const size_t most_;
  Rules rules_;
  absl::flat_hash_set<std::pair<size_t, size_t>> seen_;
  std::deque<std::pair<World, uint32_t>> frontier_;  // with the number of the step to it
  std::vector<Step> steps_;
  uint32_t at_ = 0;  // of the state that is looked at
  std::optional<std::string> wrong_;
};

size_t MostStates(size_t usual) {
  const char* const asked = std::getenv("REPLICAS_MODEL_STATES");
  return asked == nullptr ? usual : static_cast<size_t>(std::atoll(asked));
}

TEST(ReplicasModel, HoldsInEveryStateOfTwoBegins) {
  Model model(Mistake::kNone, {2, 3, 0, 1, 0}, 5'000'000);
  const std::optional<std::string> wrong = model.Run();
  EXPECT_FALSE(wrong) << *wrong;
  EXPECT_TRUE(model.exhausted());
  std::printf("%zu states\n", model.states());
}

TEST(ReplicasModel, HoldsInTheNearestStates) {
  Model model(Mistake::kNone, {}, MostStates(2'000'000));
  const std::optional<std::string> wrong = model.Run();
  EXPECT_FALSE(wrong) << *wrong;
  std::printf("%zu states\n", model.states());
  EXPECT_GE(model.states(), size_t{1'000'000});
}

// A wrong time costs an operator's work, never a second POST, and nothing that was heard: what its owner hears late is
// better evidence than a sweep.
TEST(ReplicasModel, ASweepThatComesTooEarlyLosesNothing) {
  Model model(Mistake::kSweepsTooEarly, {2, 3, 1, 1, 0}, 2'000'000);
  const std::optional<std::string> wrong = model.Run();
  EXPECT_FALSE(wrong) << *wrong;
}

struct Seeded {
  Mistake mistake;
  const char* name;
  Bounds bounds;  // as small as shows it
};
class SeededMistake : public testing::TestWithParam<Seeded> {};
INSTANTIATE_TEST_SUITE_P(
    ReplicasModel, SeededMistake,
    testing::Values(Seeded{Mistake::kNoVersionCheck, "NoVersionCheck", {2, 3, 0, 0, 0}},
                    Seeded{Mistake::kNoFence, "NoFence", {2, 3, 1, 0, 0}},
                    Seeded{Mistake::kLooksBeforeTheSessionIsClosed, "LooksBeforeTheSessionIsClosed", {2, 3, 0, 1, 0}},
                    Seeded{Mistake::kSendsFromALookUp, "SendsFromALookUp", {2, 3, 0, 1, 1}},
                    Seeded{Mistake::kSweepsToReleased, "SweepsToReleased", {2, 3, 1, 0, 0}},
                    Seeded{Mistake::kFenceBeforeTheLease, "FenceBeforeTheLease", {2, 3, 0, 0, 0}},
                    Seeded{Mistake::kLeaseNotLookedAt, "LeaseNotLookedAt", {2, 3, 0, 0, 0}},
                    Seeded{Mistake::kSweepsTheLiving, "SweepsTheLiving", {2, 3, 0, 0, 0}},
                    Seeded{Mistake::kConfirmedBeforeTheStandby, "ConfirmedBeforeTheStandby", {2, 3, 0, 0, 1}}),
    [](const auto& each) { return std::string(each.param.name); });

TEST_P(SeededMistake, IsCaught) {
  Model model(GetParam().mistake, GetParam().bounds, 20'000'000);
  const std::optional<std::string> wrong = model.Run();
  ASSERT_TRUE(wrong) << "not noticed in " << model.states() << " states";
  std::printf("%s, after %zu states\n", wrong->c_str(), model.states());
}

}  // namespace
}  // namespace userintent::ledger
