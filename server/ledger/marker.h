// ledger::Marker: moves the ledger's revision on, and the mark beside it after it.
//
// The writer thread's own. Advance goes before a batch that may write, so that whatever changes after it makes the
// ledger newer than every copy made before; it costs a commit and two syncs, once every few seconds of work.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "server/ledger/group_commit.h"
#include "server/ledger/mark.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

class Marker {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `acknowledged` is kept in every mark. `warn` takes one line for the log. All must outlive this.
  Marker(SqliteStore& store, std::string path, int64_t acknowledged, absl::Duration interval,
         const std::function<void(const std::string&)>& warn);

  // Something is about to be written.
  void NoteChange() { changed_ = true; }
  // Somebody may have made a copy: what is written from now on must be told from it.
  void NoteCopy() { due_ = {}; }
  bool Due(Time now) const { return now >= due_; }
  bool changed() const { return changed_; }

  // A new revision, then the mark. When the disk fails the commit knows, and the mark stays as it is.
  void Advance(GroupCommit& commit, Time now);
  // The mark alone, for the revision that the ledger has. The ledger must be at its path.
  void Write();

 private:
  SqliteStore& store_;
  const std::string path_;
  const int64_t acknowledged_;
  const absl::Duration interval_;
  const std::function<void(const std::string&)>& warn_;
  Time due_{};  // at the first change after a start
  bool changed_ = false;
  bool written_ = true;
};

}  // namespace userintent::ledger
