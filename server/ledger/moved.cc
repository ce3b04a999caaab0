#include "server/ledger/moved.h"

#include "absl/strings/str_cat.h"
#include "server/ledger/mark.h"

namespace userintent::ledger {

std::string WhyRefused(const Moved& moved) {
  if (moved.done) {
    return absl::StrCat("was copied to ", moved.place, " at ", TimeText(absl::ToUnixMicros(*moved.done)),
                        " and is served there; what it holds is older");
  }
  return absl::StrCat("a copy to ", moved.place, " began at ", TimeText(absl::ToUnixMicros(moved.began)),
                      " and was cut off; run userintent-ledger copy with the same --from and --to again, which ends "
                      "it, or with --undo, if this file is to be served again");
}

}  // namespace userintent::ledger
