#include "server/ledger/content.h"

#include <openssl/sha.h>

#include <array>
#include <bit>
#include <cstddef>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace userintent::ledger {
namespace {

// One thing as bytes, each value with its length, so that no two things have the same.
class Bytes {
 public:
  Bytes& Add(int64_t number) {
    absl::StrAppend(&text_, number, ";");
    return *this;
  }
  Bytes& Add(std::string_view text) {
    absl::StrAppend(&text_, text.size(), ":");
    text_ += text;
    return *this;
  }
  Bytes& Add(const std::string& text) { return Add(std::string_view(text)); }
  Bytes& Add(absl::Time time) { return Add(absl::ToUnixMicros(time)); }
  template <size_t N>
  Bytes& Add(const std::array<uint8_t, N>& bytes) {
    return Add(std::string_view(reinterpret_cast<const char*>(bytes.data()), N));
  }
  template <typename T>
  Bytes& Add(const std::optional<T>& value) {
    return value ? Add(*value) : Add(std::string_view("none"));
  }
  Bytes& Add(const Key& key) { return Add(key.caller).Add(key.request_id); }
  Bytes& Add(const Counters& counters) { return Add(int64_t{counters.confirmed}).Add(int64_t{counters.possible}); }
  template <typename T>
    requires std::is_enum_v<T>
  Bytes& Add(T value) {
    return Add(static_cast<int64_t>(value));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

Bytes BytesOf(const Row& row) {
  const Record& record = row.record;
  Bytes bytes;
  bytes.Add(record.key).Add(record.state).Add(record.sent).Add(int64_t{record.reason});
  const Answer& answer = record.answer;
  bytes.Add(int64_t{answer.http_status}).Add(int64_t{answer.confirmed}).Add(answer.user_intent_id);
  bytes.Add(answer.astra_status).Add(answer.astra_request_id).Add(answer.at);
  bytes.Add(record.attempt_id).Add(int64_t{record.posts}).Add(int64_t{record.verification_type});
  const Reading& latest = record.latest;
  bytes.Add(latest.astra_status).Add(latest.user_id).Add(int64_t{latest.verification_type});
  bytes.Add(latest.status_since).Add(latest.read_at);
  bytes.Add(record.supersedes).Add(record.superseded_by).Add(record.created).Add(record.updated);
  bytes.Add(std::bit_cast<int64_t>(row.key_id)).Add(row.content).Add(row.person).Add(row.email).Add(row.owner);
  return bytes;
}

Bytes BytesOf(const AddressAttempts& address) {
  return Bytes().Add(address.email).Add(address.all).Add(address.purged);
}

Bytes BytesOf(const AuditEntry& entry) {
  Bytes bytes;
  bytes.Add(entry.at).Add(entry.actor).Add(entry.action).Add(entry.key);
  return bytes.Add(entry.from).Add(entry.to).Add(entry.evidence);
}

Bytes BytesOf(const Conflict& conflict) {
  Bytes bytes;
  bytes.Add(conflict.at).Add(conflict.key).Add(conflict.attempt_id).Add(conflict.recorded);
  bytes.Add(conflict.recorded_intent).Add(conflict.claimed).Add(conflict.claimed_intent);
  return bytes.Add(conflict.action).Add(conflict.evidence);
}

Bytes BytesOf(const KeptWebhook& kept) {
  Bytes bytes;
  bytes.Add(kept.webhook.id).Add(kept.webhook.type).Add(kept.webhook.resource_id).Add(kept.webhook.attempt_id);
  return bytes.Add(kept.webhook.received).Add(kept.due).Add(int64_t{kept.tries}).Add(kept.result);
}

Bytes BytesOf(const ReceiverPeriod& period) { return Bytes().Add(period.began).Add(period.until); }

Bytes BytesOf(const Restored& restored) {
  return Bytes().Add(restored.backup_of).Add(restored.served_until).Add(restored.acknowledged_at);
}

Bytes BytesOf(const LoggedChange& change) { return Bytes().Add(change.revision).Add(change.key); }

Bytes BytesOf(const LedgerKey& key) {
  return Bytes().Add(std::bit_cast<int64_t>(key.id)).Add(key.since).Add(key.until);
}

Bytes BytesOf(const Life& life) {
  return Bytes().Add(life.made_at).Add(life.environment).Add(life.forgotten_to).Add(life.logged);
}

// The sum of the hashes of all things: the same whatever the order, which is hashed along where it counts.
class Summing {
 public:
  Summing(std::string part, bool ordered) : ordered_(ordered) { sum_.part = std::move(part); }
  void Add(Bytes bytes) {
    ++sum_.count;
    if (ordered_) bytes.Add(sum_.count);
    std::array<uint8_t, SHA256_DIGEST_LENGTH> hash{};
    SHA256(reinterpret_cast<const unsigned char*>(bytes.text().data()), bytes.text().size(), hash.data());
    unsigned carry = 0;
    for (size_t i = 0; i < hash.size(); ++i) {
      carry += unsigned{total_[i]} + hash[i];
      total_[i] = static_cast<uint8_t>(carry);
      carry >>= 8;
    }
  }
  PartSum Done() {
    sum_.digest = absl::BytesToHexString({reinterpret_cast<const char*>(total_.data()), total_.size()});
    return sum_;
  }

 private:
  const bool ordered_;
  PartSum sum_;
  std::array<uint8_t, SHA256_DIGEST_LENGTH> total_{};
};

constexpr bool kOrdered = true;

template <typename T>
absl::Status AddPart(Content& content, absl::Status (Content::*tell)(Content::Each<T>), const char* name, bool ordered,
                     std::vector<PartSum>& sums) {
  Summing summing(name, ordered);
  const absl::Status told = (content.*tell)([&summing](const T& one) {
    if constexpr (std::is_same_v<T, AddressAttempts>) {
      if (one.all == Counters() && one.purged == Counters()) return absl::OkStatus();
    }
    summing.Add(BytesOf(one));
    return absl::OkStatus();
  });
  sums.push_back(summing.Done());
  return told;
}

}  // namespace

absl::StatusOr<std::vector<PartSum>> SumsOf(Content& content) {
  std::vector<PartSum> sums;
  absl::Status s = AddPart(content, &Content::Rows, "requests", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Addresses, "addresses", !kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Audit, "audit entries", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Conflicts, "conflicts", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Webhooks, "webhooks", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Periods, "receiver times", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Restores, "restores", kOrdered, sums);
  if (s.ok()) s = AddPart(content, &Content::Changes, "changes", kOrdered, sums);
  if (!s.ok()) return s;
  const absl::StatusOr<std::vector<LedgerKey>> keys = content.Keys();
  if (!keys.ok()) return keys.status();
  Summing of_keys("keys", !kOrdered);
  for (const LedgerKey& key : *keys) of_keys.Add(BytesOf(key));
  sums.push_back(of_keys.Done());
  const absl::StatusOr<Life> life = content.GetLife();
  if (!life.ok()) return life.status();
  Summing of_life("identity", kOrdered);
  of_life.Add(BytesOf(*life));
  sums.push_back(of_life.Done());
  return sums;
}

}  // namespace userintent::ledger
