#include "server/intent/fingerprint.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/base/text.h"
#include "server/base/wipe.h"
#include "server/intent/fields.h"
#include "server/intent/keyed_hash.h"
#include "server/intent/text.h"

// In this file: Unicode forms of a request; its canonical form; one key's fingerprints; Fingerprinter.

namespace userintent::intent {
namespace {

using Request = v1::CreateUserIntentRequest;

bool PersonIsAscii(const Request& r) {
  bool ascii = true;
  ForEachField([&](auto row) {
    if constexpr (IsUnicodeText(row.kField.kind)) ascii = ascii && IsAscii(row.Get(r));
  });
  return ascii;
}

// Puts the texts that say who the person is into another Unicode form. True when any text changed.
bool ChangePerson(Request& r, Form form) {
  bool changed = false;
  ForEachField([&](auto row) {
    if constexpr (IsUnicodeText(row.kField.kind)) {
      const std::string& text = row.Get(r);
      if (IsAscii(text)) return;
      std::string other = Normalized(text, form);
      if (other == text) return;
      *row.Mutable(r) = std::move(other);
      changed = true;
    }
  });
  return changed;
}

void ChangeMetadata(Request& r, Form form) {
  for (auto& [key, value] : *r.mutable_metadata()) value = Normalized(value, form);
}

uint64_t LeadingNumber(const ledger::Digest& digest) {
  uint64_t number = 0;
  for (size_t i = 0; i < 8; ++i) number = number << 8 | digest[i];
  return number;
}

constexpr size_t kRecordHead = 8;
constexpr size_t kTypeRecord = kRecordHead + 4;

// Records of the canonical form (fingerprint.h), in memory that is wiped.
class RecordBuffer : public WipedBuffer {
 public:
  using WipedBuffer::WipedBuffer;

  void AppendNumber(uint64_t number) {
    if (number > UINT32_MAX) std::abort();  // no request is that long
    const char bytes[] = {static_cast<char>(number >> 24), static_cast<char>(number >> 16),
                          static_cast<char>(number >> 8), static_cast<char>(number)};
    Append({bytes, sizeof bytes});
  }
  void AppendRecord(int field, std::string_view value) {
    if (value.empty()) return;
    AppendNumber(static_cast<uint64_t>(field));
    AppendNumber(value.size());
    Append(value);
  }
  void LowerFrom(size_t at) { std::transform(data() + at, data() + size(), data() + at, ToLower); }
};

constexpr int kTypeField = Request::kVerificationTypeFieldNumber;

// Whether the fields of the person that stand before the verification type come before all others, the e-mail address
// first, and whether those behind it are the person's: so that identity() is one piece, and person() one more.
constexpr bool FieldsAreInPieces() {
  FieldScope last = FieldScope::kEmail;
  bool pieces = true;
  ForEachField([&](auto row) {
    if (row.kField.number < kTypeField) {
      pieces = pieces && row.kField.scope >= last;
      last = row.kField.scope;
    } else {
      pieces = pieces && row.kField.scope == FieldScope::kPerson;
    }
  });
  return pieces;
}
static_assert(FieldsAreInPieces(), "the pieces below would leave a field out of the person, or take one in");

// The canonical form of one request, in one buffer: identity (the e-mail address first), other fields, verification
// type, metadata, and fields of the person that were added later than those.
class Canonical {
 public:
  explicit Canonical(const Request& r) : buffer_(Capacity(r)) {
    ForEachField([&](auto row) {
      constexpr Field kField = decltype(row)::kField;
      if constexpr (kField.number < kTypeField) {
        buffer_.AppendRecord(kField.number, row.Get(r));
        if constexpr (kField.scope == FieldScope::kEmail) {
          // Not the head: a length may look like a capital letter.
          buffer_.LowerFrom(std::min(kRecordHead, buffer_.size()));
          email_end_ = buffer_.size();
        }
        if constexpr (kField.scope != FieldScope::kContent) identity_end_ = buffer_.size();
      }
    });
    AppendVerificationType(buffer_, r.verification_type());
    AppendMetadata(r);
    later_begin_ = buffer_.size();
    ForEachField([&](auto row) {
      if constexpr (row.kField.number > kTypeField) buffer_.AppendRecord(row.kField.number, row.Get(r));
    });

    AppendVerificationType(person_type_, r.verification_type() == v1::VERIFICATION_TYPE_UNSPECIFIED
                                             ? v1::VERIFICATION_TYPE_VERIFIED
                                             : r.verification_type());
  }

  std::string_view content() const { return buffer_.view(); }
  std::string_view email() const { return buffer_.view().substr(0, email_end_); }
  // What a person is: these three, in this order.
  std::string_view identity() const { return buffer_.view().substr(0, identity_end_); }
  std::string_view person_type() const { return person_type_.view(); }
  std::string_view later() const { return buffer_.view().substr(later_begin_); }

 private:
  // Enough for every record; each is at most eight bytes longer than what it holds.
  static size_t Capacity(const Request& r) {
    size_t capacity = FieldBytes(r) + kFieldCount * kRecordHead + kTypeRecord + kRecordHead;
    for (const auto& [key, value] : r.metadata()) capacity += key.size() + value.size() + 8;
    return capacity;
  }

  // The number itself, not its name: an enum value that this version does not know must count too.
  static void AppendVerificationType(RecordBuffer& buffer, int type) {
    if (type == v1::VERIFICATION_TYPE_UNSPECIFIED) return;
    buffer.AppendNumber(kTypeField);
    buffer.AppendNumber(4);
    buffer.AppendNumber(static_cast<uint32_t>(type));
  }

  void AppendMetadata(const Request& r) {
    if (r.metadata().empty()) return;
    std::vector<std::pair<std::string_view, std::string_view>> pairs;
    pairs.reserve(r.metadata().size());
    size_t size = 0;
    for (const auto& [key, value] : r.metadata()) {
      pairs.emplace_back(key, value);
      size += key.size() + value.size() + 8;
    }
    std::sort(pairs.begin(), pairs.end());
    buffer_.AppendNumber(Request::kMetadataFieldNumber);
    buffer_.AppendNumber(size);
    for (const auto& [key, value] : pairs) {
      buffer_.AppendNumber(key.size());
      buffer_.Append(key);
      buffer_.AppendNumber(value.size());
      buffer_.Append(value);
    }
  }

  RecordBuffer buffer_;
  size_t email_end_ = 0;
  size_t identity_end_ = 0;
  size_t later_begin_ = 0;
  RecordBuffer person_type_{kTypeRecord};
};

}  // namespace

// The domains keep a hash made for one purpose from meaning anything for another.
struct Fingerprinter::Key {
  explicit Key(const Secret& key) : hash(key), id(LeadingNumber(hash.Of("userintent/v1/key-id"))) {}

  // As version 1: all of it as given.
  ledger::Fingerprints AsGiven(const Request& request) const {
    const Canonical canonical(request);
    ledger::Fingerprints prints;
    prints.key_id = id;
    prints.content = hash.Of("userintent/v1/content", canonical.content());
    prints.person = PersonOf(canonical);
    prints.email = hash.Of("userintent/v1/email", canonical.email());
    return prints;
  }

  ledger::Fingerprints Of(const Request& request) const {
    ledger::Fingerprints prints = AsGiven(request);
    if (PersonIsAscii(request)) return prints;
    Request composed = request;
    if (ChangePerson(composed, Form::kNfc)) prints.person = PersonOf(composed);
    return prints;
  }

  ledger::Digest PersonOf(const Request& request) const { return PersonOf(Canonical(request)); }
  ledger::Digest ContentOf(const Request& request) const {
    return hash.Of("userintent/v1/content", Canonical(request).content());
  }

  KeyedHash hash;
  uint64_t id;

 private:
  ledger::Digest PersonOf(const Canonical& canonical) const {
    return hash.Of("userintent/v1/person", canonical.identity(), canonical.person_type(), canonical.later());
  }
};

template <typename F>
void Fingerprinter::ForEachKey(F f) const {
  f(*current_);
  for (const auto& key : previous_) f(*key);
}

Fingerprinter::Fingerprinter(const Secret& key, const std::vector<Secret>& previous)
    : current_(std::make_unique<const Key>(key)) {
  for (const Secret& one : previous) previous_.push_back(std::make_unique<const Key>(one));
}

Fingerprinter::~Fingerprinter() = default;

ledger::Fingerprints Fingerprinter::Current(const Request& request) const { return current_->Of(request); }

std::vector<ledger::Fingerprints> Fingerprinter::Older(const Request& request) const {
  std::vector<ledger::Fingerprints> older;
  older.reserve(previous_.size());
  for (const auto& key : previous_) older.push_back(key->Of(request));
  if (PersonIsAscii(request)) return older;
  Request composed = request;
  Request decomposed = request;
  const bool is_nfc = !ChangePerson(composed, Form::kNfc);
  const bool is_nfd = !ChangePerson(decomposed, Form::kNfd);
  ForEachKey([&](const Key& key) {
    // Where two of the forms are equal, so are their fingerprints, and one look is enough.
    ledger::Fingerprints prints = key.AsGiven(request);
    if (!is_nfc) older.push_back(prints);
    if (is_nfd) return;
    prints.person = key.PersonOf(decomposed);
    older.push_back(prints);
  });
  return older;
}

bool Fingerprinter::DiffersInFormOnly(const Request& request, const ledger::Digest& content) const {
  const bool plain = PersonIsAscii(request) && std::all_of(request.metadata().begin(), request.metadata().end(),
                                                           [](const auto& entry) { return IsAscii(entry.second); });
  if (plain) return false;
  bool differs = false;
  for (const Form form : {Form::kNfc, Form::kNfd}) {
    Request other = request;
    ChangePerson(other, form);
    ChangeMetadata(other, form);
    ForEachKey([&](const Key& key) {
      const ledger::Digest digest = key.ContentOf(other);
      differs = differs || CRYPTO_memcmp(digest.data(), content.data(), content.size()) == 0;
    });
  }
  return differs;
}

uint64_t Fingerprinter::key_id() const { return current_->id; }

std::vector<uint64_t> Fingerprinter::previous_key_ids() const {
  std::vector<uint64_t> ids;
  ids.reserve(previous_.size());
  for (const auto& key : previous_) ids.push_back(key->id);
  return ids;
}

}  // namespace userintent::intent
