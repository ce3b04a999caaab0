#include "server/ledger/marker.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::ledger {

Marker::Marker(SqliteStore& store, std::string path, int64_t acknowledged, absl::Duration interval,
               const std::function<void(const std::string&)>& warn)
    : store_(store), path_(std::move(path)), acknowledged_(acknowledged), interval_(interval), warn_(warn) {}

void Marker::Advance(GroupCommit& commit, Time now) {
  due_ = now + absl::ToChronoNanoseconds(interval_);
  changed_ = false;
  if (commit.Transact([this] { return store_.Touch(); }).ok()) Write();
}

void Marker::Write() {
  const absl::Status status = WriteMark(path_, {store_.made_at(), store_.revision(), store_.in_file(), acknowledged_});
  if (std::exchange(written_, status.ok()) == status.ok()) return;
  warn_(status.ok() ? absl::StrCat("ledger ", path_, ": its mark is written again")
                    : absl::StrCat("ledger ", path_,
                                   ": its mark cannot be written, so a backup in its place may not be "
                                   "noticed: ",
                                   std::string(status.message())));
}

}  // namespace userintent::ledger
