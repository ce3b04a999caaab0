// Both stores under the same random histories: the SQLite store, which remembers part of what it wrote, must answer as
// the memory store does, and as it does itself once it has forgotten. Seeds are fixed; one thread.
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "server/ledger/memory_store.h"
#include "server/ledger/sqlite_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

constexpr int kIds = 8;
const std::vector<std::string> kCallers = {"one", "two"};
const std::vector<std::string> kEmails = {"a@example.com", "b@example.com", "c@example.com", "d@example.com"};
const std::vector<std::string> kPersons = {"ann", "bob"};
const std::vector<uint64_t> kKeys = {kOldestKey, kOldKey, kKey};  // each takes the place of the one before it

std::string Show(const std::optional<Uuid>& id) { return id ? UuidText(*id) : "-"; }
// To the microsecond: that much is kept.
std::string Show(absl::Time time) { return absl::FormatTime("%s.%E6f", time, absl::UTCTimeZone()); }

std::string Show(const Record& r) {
  std::ostringstream out;
  out << r.key.caller << ' ' << UuidText(r.key.request_id) << ' ' << static_cast<int>(r.state) << ' '
      << static_cast<int>(r.sent) << ' ' << r.reason << ' ' << r.answer.http_status << ' ' << r.answer.confirmed << ' '
      << r.answer.user_intent_id << ' ' << r.answer.astra_status << ' ' << r.answer.astra_request_id << ' '
      << Show(r.answer.at) << ' ' << UuidText(r.attempt_id) << ' ' << r.posts << ' ' << Show(r.supersedes) << ' '
      << Show(r.superseded_by) << ' ' << Show(r.created) << ' ' << Show(r.updated) << ' ' << r.verification_type << ' '
      << r.latest.astra_status << ' ' << r.latest.user_id << ' ' << r.latest.verification_type << ' '
      << Show(r.latest.status_since) << ' ' << Show(r.latest.read_at);
  return out.str();
}
std::string Show(const std::optional<Record>& r) { return r ? Show(*r) : "none"; }
std::string Show(const Budget& b) { return std::to_string(b.used_min) + ".." + std::to_string(b.used_max); }

// One operation drawn from the dice, done to a store: what was said, in words.
class Deed {
 public:
  Deed(std::mt19937& dice, int64_t at, size_t rotations) : kind_(Below(dice, 26)), now_(At(at) + absl::Nanoseconds(1)) {
    call_.caller = Pick(dice, kCallers);
    call_.id = Below(dice, kIds);
    // Mostly what this id has always asked for, so that what was released starts again.
    const bool same = Below(dice, 6) != 0;
    call_.email = same ? kEmails[static_cast<size_t>(call_.id) % kEmails.size()] : Pick(dice, kEmails);
    call_.person = same ? kPersons[static_cast<size_t>(call_.id) % kPersons.size()] : Pick(dice, kPersons);
    if (Below(dice, 4) == 0) call_.supersedes = Below(dice, kIds);
    call_.allow_repeat = Below(dice, 2) == 0;
    call_.may_start = Below(dice, 8) != 0;
    call_.limit = Below(dice, 2) == 0 ? 0 : 3;
    call_.attempt = Below(dice, 1000);
    call_.key = kKeys.at(rotations);
    call_.previous.assign(kKeys.rend() - static_cast<std::ptrdiff_t>(rotations), kKeys.rend());
    const std::vector<FinishRequest> ends = {
        Succeeded(call_.key_of()),     Succeeded(call_.key_of()), Failed(call_.key_of()),  Unknown(call_.key_of()),
        Unknown(call_.key_of(), true), Released(call_.key_of()),  Released(call_.key_of())};
    end_ = Pick(dice, ends);
    resolve_ = Below(dice, 2) == 0 ? AsCreated(call_.key_of()) : AsNotCreated(call_.key_of());
    call_.verification_type = Below(dice, 3);
    reading_ = Said(Below(dice, 2) == 0 ? "pending" : "converted", 0, Below(dice, 2) == 0 ? "" : "user-1");
    reading_.read_at = now_ - absl::Seconds(Below(dice, 30));
    settle_ = Pick(
        dice, std::vector<SettleRequest>{ProofOf(call_.key_of()), ProofOf(call_.key_of(), "intent-8"),
                                         ProofOfNone(call_.key_of()), ProofOfNone(call_.key_of(), State::kReleased)});
    if (Below(dice, 3) == 0) settle_.reading = reading_;
    purge_before_ = now_ + absl::Milliseconds(1) - absl::Seconds(Below(dice, 200));
  }

  // It looks through many rows. A store behind a network does so as they are committed, so it goes first.
  bool Scans() const { return kind_ == 18 || kind_ >= 23; }

  std::string DoTo(Store& store) const {
    if (kind_ < 9) {
      BeginRequest request = call_.request();
      request.now = now_;
      const auto answer = Execute(store, request);
      if (!answer.ok()) return answer.status().ToString();
      return "begin " + std::to_string(static_cast<int>(answer->verdict)) + ' ' + Show(answer->own) + ' ' +
             Show(answer->budget) + ' ' + answer->existing_intent_id + ' ' + Show(answer->unresolved);
    }
    if (kind_ < 15) {
      FinishRequest request = end_;
      request.now = request.answer.at = now_;
      const auto answer = Execute(store, request);
      return answer.ok() ? "finish " + Show(answer->record) + ' ' + Show(answer->budget) : answer.status().ToString();
    }
    if (kind_ < 16) {
      return "attempt " +
             Execute(store, NextAttemptRequest{call_.key_of(), Id(call_.attempt), Sent::kMaybe, now_}).ToString();
    }
    if (kind_ < 18) {
      ResolveRequest request = resolve_;
      request.now = now_;
      const auto answer = Execute(store, request);
      return answer.ok() ? "resolve " + Show(answer->record) + ' ' + Show(answer->budget) : answer.status().ToString();
    }
    if (kind_ < 19) return "recover " + std::to_string(Execute(store, RecoverRequest{19, now_, 100}).value());
    if (kind_ < 20) return "reading " + Execute(store, ReadingRequest{call_.key_of(), reading_}).ToString();
    if (kind_ < 21) {
      const auto answer = Execute(store, GetRequest{{call_.caller, {}}, resolve_.created.value_or("intent-1")}).value();
      return "intent " + Show(answer.record) + ' ' + Show(answer.budget);
    }
    if (kind_ < 23) {
      // What it is about is what this id has now, mostly.
      SettleRequest request = settle_;
      const GetAnswer got = Execute(store, GetRequest{call_.key_of(), {}}).value();
      request.attempt_id = got.record && call_.attempt % 8 != 0 ? got.record->attempt_id : Id(call_.attempt);
      request.now = request.answer.at = now_;
      const auto answer = Execute(store, request);
      if (!answer.ok()) return "settle " + std::string(answer.status().message());
      return "settle " + std::to_string(static_cast<int>(answer->verdict)) + ' ' + Show(answer->record);
    }
    if (kind_ < 24) {
      const auto answer = Execute(store, TraceRequest{"intent-1", Id(call_.attempt), purge_before_, 0}).value();
      return "trace " + Show(answer.by_intent) + ' ' + Show(answer.by_attempt);
    }
    if (kind_ < 25) {
      // Rows that are recovered together change in any order; what has ended is told in the end by every store.
      const auto answer = Execute(store, ChangeFeed::Request{call_.caller, nullptr, 0, 1000}).value();
      std::set<std::string> told;
      for (const auto& one : answer.changed) {
        if (one.record.state != State::kSending) told.insert(Show(one.record) + ' ' + Show(one.budget));
      }
      std::string said = "changes " + std::to_string(answer.too_old) + ' ' + std::to_string(answer.upto);
      for (const std::string& one : told) said += "\n" + one;
      return said;
    }
    // To its end, because where a round goes on is each store's own.
    size_t purged = 0;
    for (;;) {
      const PurgeAnswer answer = Execute(store, PurgeRequest{purge_before_, 3}).value();
      if (answer.seen == 0) return "purge " + std::to_string(purged);
      purged += answer.purged;
    }
  }

 private:
  static int Below(std::mt19937& dice, int end) { return static_cast<int>(dice() % static_cast<unsigned>(end)); }
  template <typename T>
  static T Pick(std::mt19937& dice, const std::vector<T>& from) {
    return from[static_cast<size_t>(Below(dice, static_cast<int>(from.size())))];
  }

  int kind_;
  absl::Time now_;
  Call call_;
  FinishRequest end_;
  ResolveRequest resolve_;
  Reading reading_;
  SettleRequest settle_;
  absl::Time purge_before_;
};

// All that anybody can see of a store.
std::string Contents(Store& store) {
  std::ostringstream out;
  for (const std::string& caller : kCallers) {
    for (int id = 0; id < kIds; ++id) {
      const GetAnswer got = Execute(store, GetRequest{{caller, Id(id)}, {}}).value();
      if (got.record) out << Show(*got.record) << ' ' << Show(got.budget) << '\n';
    }
  }
  for (const uint64_t key : kKeys) {
    for (const std::string& email : kEmails) {
      for (const std::string& caller : kCallers) {
        for (const std::string& person : kPersons) {
          const Fingerprints prints = Prints(key, email, person, "");
          const Key nobody{caller, Id(1000)};
          Lookup lookup;
          lookup.key = &nobody;
          lookup.open = true;
          lookup.emails = {&prints.email};
          lookup.persons = {&prints.person};
          const View view = store.Load(lookup).value();
          out << key << ' ' << email << ' ' << view.counters.confirmed << ' ' << view.counters.possible;
          for (const Row& row : view.open) out << " open " << UuidText(row.record.key.request_id);
          if (view.person) out << ' ' << person << " is " << UuidText(view.person->record.key.request_id);
        }
      }
      out << '\n';
    }
  }
  const UnresolvedAnswer unresolved = Execute(store, UnresolvedRequest{}).value();
  out << unresolved.available << ' ' << unresolved.count << " unresolved since " << Show(unresolved.oldest) << '\n';
  return out.str();
}

// A seed, and after how many keys a merge begins; 0: never.
class StoresTest : public testing::TestWithParam<std::tuple<int, size_t>> {
 protected:
  StoresTest() {
    const auto [seed, begin_at] = GetParam();
    options_.path = directory_.File("ledger.db");
    options_.key_id = kKey;
    options_.previous_key_ids = {kOldKey, kOldestKey};
    options_.synchronous_normal = true;  // nothing here loses power
    if (begin_at != 0) options_.merge = EarlyMerges(begin_at);
    Open();
  }
  void Open() {
    sqlite_.reset();
    sqlite_ = SqliteStore::Open(options_).value();
  }
  TemporaryDirectory directory_;
  SqliteStoreOptions options_;
  std::unique_ptr<SqliteStore> sqlite_;
  MemoryStore memory_;
};
INSTANTIATE_TEST_SUITE_P(Random, StoresTest,
                         testing::Combine(testing::Range(1, 11), testing::ValuesIn<size_t>({0, 1, 2, 7})));

// Fewer steps: each is several round trips.
class PostgresStoresTest : public testing::TestWithParam<int> {};

TEST_P(PostgresStoresTest, AgreesWithMemory) {
  const std::vector<StoreKind> kinds = StoreKinds();
  if (kinds.back().name != "postgres") GTEST_SKIP() << "there is no PostgreSQL";
  const std::unique_ptr<Store> postgres = kinds.back().make();
  MemoryStore memory;
  constexpr int kSteps = 300;
  std::mt19937 dice(static_cast<unsigned>(GetParam()));
  for (int step = 0; step < kSteps;) {
    ASSERT_TRUE(memory.Start().ok() && postgres->Start().ok());
    bool undo = dice() % 5 == 0;
    bool first = true;
    for (auto left = dice() % 6; left > 0; --left, ++step) {
      const Deed deed(dice, step, std::min(kKeys.size() - 1, static_cast<size_t>(step) * kKeys.size() / kSteps));
      if (deed.Scans() && !std::exchange(first, false)) continue;
      first = false;
      const std::string said = deed.DoTo(memory);
      ASSERT_EQ(deed.DoTo(*postgres), said) << "step " << step;
      undo = undo || said.rfind("INTERNAL", 0) == 0;
    }
    if (undo) {
      memory.Rollback();
      postgres->Rollback();
    } else {
      ASSERT_TRUE(memory.Commit().ok());
      const absl::Status s = postgres->Commit();
      ASSERT_TRUE(s.ok()) << s << ", step " << step;
    }
    ASSERT_EQ(Contents(*postgres), Contents(memory)) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Random, PostgresStoresTest, testing::Range(1, 9));

TEST_P(StoresTest, Agree) {
  constexpr int kSteps = 900;
  std::mt19937 dice(static_cast<unsigned>(std::get<0>(GetParam())));
  for (int step = 0; step < kSteps;) {
    ASSERT_TRUE(memory_.Start().ok() && sqlite_->Start().ok());
    bool undo = dice() % 5 == 0;
    for (auto left = dice() % 6; left > 0; --left, ++step) {
      const Deed deed(dice, step, std::min(kKeys.size() - 1, static_cast<size_t>(step) * kKeys.size() / kSteps));
      const std::string said = deed.DoTo(memory_);
      ASSERT_EQ(deed.DoTo(*sqlite_), said) << "step " << step;
      // A protocol's breach has written nothing; anything worse takes the transaction with it.
      undo = undo || said.rfind("INTERNAL", 0) == 0;
    }
    if (undo) {
      memory_.Rollback();
      sqlite_->Rollback();
    } else {
      ASSERT_TRUE(memory_.Commit().ok() && sqlite_->Commit().ok());
    }
    const std::string seen = Contents(*sqlite_);
    ASSERT_EQ(seen, Contents(memory_)) << "step " << step;
    if (dice() % 4 != 0) continue;
    if (dice() % 4 == 0) {
      Open();
    } else {
      ASSERT_TRUE(sqlite_->Start().ok());
      sqlite_->Rollback();  // what is remembered goes with it
    }
    ASSERT_EQ(Contents(*sqlite_), seen) << "step " << step;
  }
}

}  // namespace
}  // namespace userintent::ledger
