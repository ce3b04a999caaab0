// ledger::OpLedger: the calls of a Ledger as operations for a Front. The base of both ledgers.
//
// Any thread may call any method. The derived class owns the Front and says in Run how an operation gets to it.
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "server/ledger/front.h"
#include "server/ledger/ledger.h"

namespace userintent::ledger {

class OpLedger : public Ledger {
 public:
  Token Begin(BeginRequest request, Executor& executor, BeginDone done) final {
    const Token token = ++last_token_;
    Run(BeginOp{token, std::move(request), &executor, std::move(done)});
    return token;
  }
  void Forget(Token token) final { Run(ForgetOp{token}); }
  void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                   AttemptDone done) final {
    Run(NextAttemptOp{{std::move(key), attempt_id, sent_so_far, now}, &executor, std::move(done)});
  }
  void Finish(FinishRequest request, Executor& executor, FinishDone done) final {
    Run(FinishOp{std::move(request), &executor, std::move(done)});
  }
  void Get(Key key, Executor& executor, GetDone done) final {
    Run(GetOp{{std::move(key), {}}, &executor, std::move(done)});
  }
  void FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) final {
    Run(GetOp{{{std::move(caller), {}}, std::move(user_intent_id)}, &executor, std::move(done)});
  }
  void RecordReading(Key key, Reading reading, Executor& executor, ReadingDone done) final {
    Run(RecordReadingOp{{std::move(key), std::move(reading)}, &executor, std::move(done)});
  }

 private:
  virtual void Run(Op op) = 0;

  std::atomic<Token> last_token_{0};
};

}  // namespace userintent::ledger
