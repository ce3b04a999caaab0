// What happens after a try: may there be another one, when, and what is told or recorded where there is none. Pure
// functions of the outcome and the facts, total over the verdicts; any thread. The waiting, the sending and the
// recording are done by Creation and IntentReads.
#pragma once

#include <variant>

#include "absl/time/time.h"
#include "server/astra/astra.h"
#include "server/ledger/ledger.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::usecase {

// 429 without Retry-After (contract section 4).
inline constexpr absl::Duration kDefaultRetryAfter = absl::Seconds(1);

// What a policy must know beside the outcome.
struct RetryFacts {
  bool wanted = true;            // a caller still waits, and the process does not drain
  absl::Duration longest_wait;   // a wait that is longer comes too late for the callers; negative: so does every try
  bool new_credentials = false;  // since the last request; looked at after the first 401 alone
  double random = 0;             // in [0, 1): the jitter
};

// Whether the request reached Astra, as far as the outcome of its POST tells.
ledger::Sent SentOf(astra::Verdict verdict);

// A creation sends again only with proof that Astra did not process the last try (contract section 4).
class RetryPolicy {
 public:
  // Each limit is of its own kind of failure, and none uses up another's: connections that failed; streams that the
  // peer refused unprocessed (tries in all, for as long as it does so); one answer 429 or 503; one 401.
  static constexpr int kMaxConnects = 3;
  static constexpr int kMaxTriesWithRefusals = 6;

  // The tries of one call, the one that just ended included.
  struct Tries {
    int all = 0;
    int not_sent = 0;
    int refused_streams = 0;
    int not_now = 0;       // answers 429 and 503
    int unauthorized = 0;  // answers 401

    void Count(const astra::Outcome& outcome);
  };
  // The row ends like this.
  struct Record {
    ledger::State state;
    v1::ErrorReason reason;
  };
  struct TryAgain {
    absl::Duration wait;
    bool fresh_attempt_id;  // the next try is another POST, not the same one begun again
    v1::ErrorReason reason_if_given_up;
  };
  using Decision = std::variant<Record, TryAgain>;

  static Decision Next(const astra::Outcome& outcome, const Tries& tries, const RetryFacts& facts);

  // The same where there is no other try, whatever the outcome.
  static Record WithoutAnotherTry(const astra::Outcome& outcome);

  // Whether facts.new_credentials is looked at.
  static bool AsksForCredentials(const astra::Outcome& outcome, const Tries& tries);
};

// A read may be sent again after anything that may pass: it changes nothing at Astra.
class ReadRetryPolicy {
 public:
  static constexpr int kMaxTries = 3;

  // The GETs of one read, the one that just ended included.
  struct Tries {
    int all = 0;
    int unauthorized = 0;

    void Count(const astra::ReadOutcome& outcome);
  };
  struct Answered {};
  struct GiveUp {
    v1::ErrorReason reason;
    absl::Duration retry_after = absl::Seconds(1);  // for reasons with RetryInfo
  };
  struct TryAgain {
    absl::Duration wait;
    GiveUp otherwise;  // when that try is not wanted any more
  };
  using Decision = std::variant<Answered, GiveUp, TryAgain>;

  static Decision Next(const astra::ReadOutcome& outcome, const Tries& tries, const RetryFacts& facts);
  static bool AsksForCredentials(const astra::ReadOutcome& outcome, const Tries& tries);
};

}  // namespace userintent::usecase
