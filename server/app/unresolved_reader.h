// UnresolvedReader: reads from the ledger, for the page of /status, the requests whose outcome nobody knows.
//
// A thread of its own reads the ledger, so that one that does not answer keeps nobody waiting for longer than he
// likes; one reading at a time. Made by side_doors.cc, which destroys it before the ledger; the destructor waits for a
// reading under way. Get() may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "server/admin/unresolved.h"
#include "server/base/mutex.h"
#include "server/config/settings.h"
#include "server/ledger/operator_access.h"

namespace userintent {

class UnresolvedReader {
 public:
  using Read = std::function<absl::StatusOr<admin::Unresolved>()>;  // on the reader's thread

  // Of the ledger that the settings name: `sqlite` where it is one, which outlives this; for PostgreSQL a session of
  // its own, opened when it is first needed. Null for one in memory, which no tool can look into.
  static std::unique_ptr<UnresolvedReader> Of(const config::Settings& settings, ledger::OperatorAccess* sqlite);

  explicit UnresolvedReader(Read read);
  ~UnresolvedReader();
  UnresolvedReader(const UnresolvedReader&) = delete;
  UnresolvedReader& operator=(const UnresolvedReader&) = delete;

  struct Answer {
    std::shared_ptr<const admin::Unresolved> list;  // the last that was read; null: none was
    std::string problem;                            // why it is not of now; empty: it is
  };
  // Has it read, and waits for that no longer than `patience`. What it answers with was asked for after the call: a
  // reading under way may be older than what an operator did last, and is waited for, but is not the answer.
  Answer Get(std::chrono::milliseconds patience);

 private:
  void Run();

  const Read read_;
  Mutex mutex_;
  CondVar changed_;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t begun_ ABSL_GUARDED_BY(mutex_) = 0;  // readings
  uint64_t ended_ ABSL_GUARDED_BY(mutex_) = 0;  // of them
  Answer last_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the others
};

}  // namespace userintent
