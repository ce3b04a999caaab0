#include "server/usecase/watch_request.h"

#include <array>
#include <cstddef>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace userintent::usecase {
namespace {

// Violations hold constants only, so each element has its own.
std::string_view NoUuid(int element) {
  static const auto& texts = *[] {
    auto* all = new std::array<std::string, kMaxWatchedRequests>;
    for (size_t i = 0; i < all->size(); ++i) {
      (*all)[i] = absl::StrCat("element ", i, ", counted from 0, is not UUID text 8-4-4-4-12");
    }
    return all;
  }();
  return texts[static_cast<size_t>(element)];
}

}  // namespace

WatchRequest ReadWatchRequest(const v1::WatchUserIntentsRequest& request, std::string_view caller,
                              const WatchTokens& tokens, std::vector<intent::Violation>* violations) {
  WatchRequest read;
  if (request.request_ids_size() > kMaxWatchedRequests) {
    violations->push_back({"request_ids", "at most 1,000; leave it empty to follow all of yours"});
    return read;
  }
  absl::flat_hash_set<Uuid> seen;
  for (int i = 0; i < request.request_ids_size(); ++i) {
    const std::optional<Uuid> id = ParseUuid(request.request_ids(i));
    if (!id) {
      violations->push_back({"request_ids", NoUuid(i)});
    } else if (seen.insert(*id).second) {
      read.ids.push_back(*id);
    }
  }
  if (request.resume_token().empty()) return read;
  const WatchTokens::Verdict verdict = tokens.Read(caller, request.resume_token(), &read.position);
  read.too_old = verdict == WatchTokens::Verdict::kTooOld;
  if (verdict == WatchTokens::Verdict::kForeign) {
    violations->push_back({"resume_token", "a token that this ledger gave to this caller"});
  }
  return read;
}

}  // namespace userintent::usecase
