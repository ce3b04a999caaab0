#include "server/intent/fingerprint.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/intent/text.h"

namespace userintent::intent {
namespace {

using Request = v1::CreateUserIntentRequest;

struct MacFree {
  void operator()(EVP_MAC* mac) const { EVP_MAC_free(mac); }
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};
using MacContext = std::unique_ptr<EVP_MAC_CTX, MacFree>;

// HMAC of bytes in memory fails only when memory runs out or OpenSSL has no SHA-256. Going on without a fingerprint
// would break the promise, so neither is survivable.
void Must(bool ok) {
  if (!ok) std::abort();
}

void Absorb(EVP_MAC_CTX* context, std::string_view bytes) {
  Must(EVP_MAC_update(context, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()) == 1);
}

// HMAC-SHA256 under one key. For one thread; whoever shares one works on a copy, which costs about as much as a hash.
class KeyedHash {
 public:
  explicit KeyedHash(const Secret& key) {
    const std::unique_ptr<EVP_MAC, MacFree> mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
    Must(mac != nullptr);
    context_.reset(EVP_MAC_CTX_new(mac.get()));
    Must(context_ != nullptr);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    const std::string_view bytes = key.Reveal();
    Must(EVP_MAC_init(context_.get(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), params) == 1);
  }
  KeyedHash(const KeyedHash& other) : context_(EVP_MAC_CTX_dup(other.context_.get())) { Must(context_ != nullptr); }
  KeyedHash& operator=(const KeyedHash&) = delete;

  // Of domain NUL bytes... May be called again and again.
  template <typename... Bytes>
  ledger::Digest Of(std::string_view domain, Bytes... bytes) {
    Absorb(context_.get(), domain);
    Absorb(context_.get(), std::string_view("\0", 1));
    (Absorb(context_.get(), bytes), ...);
    ledger::Digest digest;
    size_t size = 0;
    Must(EVP_MAC_final(context_.get(), digest.data(), &size, digest.size()) == 1 && size == digest.size());
    Must(EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1);  // from the start, under the same key
    return digest;
  }

 private:
  MacContext context_;
};

// The fields of a person that are text, which may come in more than one Unicode form. The rules keep the others ASCII.
struct TextField {
  const std::string& (Request::*get)() const;
  std::string* (Request::*change)();
};
constexpr TextField kTextFields[] = {
    {&Request::first_name, &Request::mutable_first_name},
    {&Request::last_name, &Request::mutable_last_name},
    {&Request::preferred_first_name, &Request::mutable_preferred_first_name},
    {&Request::preferred_last_name, &Request::mutable_preferred_last_name},
    {&Request::preferred_pronouns, &Request::mutable_preferred_pronouns},
    {&Request::address1, &Request::mutable_address1},
    {&Request::address2, &Request::mutable_address2},
    {&Request::city, &Request::mutable_city},
};

bool PersonIsAscii(const Request& r) {
  return std::all_of(std::begin(kTextFields), std::end(kTextFields),
                     [&r](const TextField& field) { return IsAscii((r.*field.get)()); });
}

// True when any text changed.
bool ChangePerson(Request& r, Form form) {
  bool changed = false;
  for (const TextField& field : kTextFields) {
    const std::string& text = (r.*field.get)();
    if (IsAscii(text)) continue;
    std::string other = Normalized(text, form);
    if (other == text) continue;
    *(r.*field.change)() = std::move(other);
    changed = true;
  }
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

// Bytes that are wiped when they go. Never grows beyond its first capacity, so that no forgotten copy stays behind in
// the heap.
class WipedBuffer {
 public:
  explicit WipedBuffer(size_t capacity) { bytes_.reserve(capacity); }
  ~WipedBuffer() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }
  WipedBuffer(const WipedBuffer&) = delete;
  WipedBuffer& operator=(const WipedBuffer&) = delete;

  void Append(std::string_view bytes) {
    Must(bytes.size() <= bytes_.capacity() - bytes_.size());
    bytes_.append(bytes);
  }
  void AppendNumber(uint64_t number) {
    Must(number <= UINT32_MAX);
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
  void LowerFrom(size_t at) {
    std::transform(bytes_.begin() + static_cast<std::ptrdiff_t>(at), bytes_.end(),
                   bytes_.begin() + static_cast<std::ptrdiff_t>(at),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
  }
  size_t size() const { return bytes_.size(); }
  std::string_view view() const { return bytes_; }

 private:
  std::string bytes_;
};

// The canonical form of one request, in one buffer.
class Canonical {
 public:
  explicit Canonical(const Request& r) : buffer_(Capacity(r)) {
    buffer_.AppendRecord(Request::kEmailFieldNumber, r.email());
    buffer_.LowerFrom(std::min(kRecordHead, buffer_.size()));  // not the head: a length may look like a capital letter
    email_end_ = buffer_.size();

    buffer_.AppendRecord(Request::kPhoneFieldNumber, r.phone());
    buffer_.AppendRecord(Request::kFirstNameFieldNumber, r.first_name());
    buffer_.AppendRecord(Request::kLastNameFieldNumber, r.last_name());
    buffer_.AppendRecord(Request::kPreferredFirstNameFieldNumber, r.preferred_first_name());
    buffer_.AppendRecord(Request::kPreferredLastNameFieldNumber, r.preferred_last_name());
    buffer_.AppendRecord(Request::kPreferredPronounsFieldNumber, r.preferred_pronouns());
    buffer_.AppendRecord(Request::kAddress1FieldNumber, r.address1());
    buffer_.AppendRecord(Request::kAddress2FieldNumber, r.address2());
    buffer_.AppendRecord(Request::kCityFieldNumber, r.city());
    buffer_.AppendRecord(Request::kStateFieldNumber, r.state());
    buffer_.AppendRecord(Request::kPostalCodeFieldNumber, r.postal_code());
    buffer_.AppendRecord(Request::kDateOfBirthFieldNumber, r.date_of_birth());
    buffer_.AppendRecord(Request::kSsnLastFourFieldNumber, r.ssn_last_four());
    identity_end_ = buffer_.size();

    buffer_.AppendRecord(Request::kIpAddressFieldNumber, r.ip_address());
    AppendVerificationType(buffer_, r.verification_type());
    AppendMetadata(r);

    AppendVerificationType(person_type_, r.verification_type() == v1::VERIFICATION_TYPE_UNSPECIFIED
                                             ? v1::VERIFICATION_TYPE_VERIFIED
                                             : r.verification_type());
  }

  std::string_view content() const { return buffer_.view(); }
  std::string_view email() const { return buffer_.view().substr(0, email_end_); }
  // What a person is: these two, in this order.
  std::string_view identity() const { return buffer_.view().substr(0, identity_end_); }
  std::string_view person_type() const { return person_type_.view(); }

 private:
  static constexpr size_t kRecordHead = 8;
  static constexpr size_t kTypeRecord = kRecordHead + 4;

  // Enough for every record; each is at most eight bytes longer than what it holds.
  static size_t Capacity(const Request& r) {
    size_t capacity = r.email().size() + r.phone().size() + r.first_name().size() + r.last_name().size() +
                      r.preferred_first_name().size() + r.preferred_last_name().size() + r.preferred_pronouns().size() +
                      r.address1().size() + r.address2().size() + r.city().size() + r.state().size() +
                      r.postal_code().size() + r.date_of_birth().size() + r.ssn_last_four().size() +
                      r.ip_address().size() + 15 * kRecordHead + kTypeRecord + kRecordHead;
    for (const auto& [key, value] : r.metadata()) capacity += key.size() + value.size() + 8;
    return capacity;
  }

  // The number itself, not its name: an enum value that this version does not know must count too.
  static void AppendVerificationType(WipedBuffer& buffer, int type) {
    if (type == v1::VERIFICATION_TYPE_UNSPECIFIED) return;
    buffer.AppendNumber(Request::kVerificationTypeFieldNumber);
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

  WipedBuffer buffer_;
  size_t email_end_ = 0;
  size_t identity_end_ = 0;
  WipedBuffer person_type_{kTypeRecord};
};

}  // namespace

// The domains keep a hash made for one purpose from meaning anything for another.
struct Fingerprinter::Key {
  explicit Key(const Secret& key) : hash(key), id(LeadingNumber(KeyedHash(hash).Of("userintent/v1/key-id"))) {}

  // As version 1: all of it as given.
  ledger::Fingerprints AsGiven(const Request& request) const {
    const Canonical canonical(request);
    KeyedHash own(hash);
    ledger::Fingerprints prints;
    prints.key_id = id;
    prints.content = own.Of("userintent/v1/content", canonical.content());
    prints.person = PersonOf(own, canonical);
    prints.email = own.Of("userintent/v1/email", canonical.email());
    return prints;
  }

  ledger::Fingerprints Of(const Request& request) const {
    ledger::Fingerprints prints = AsGiven(request);
    if (PersonIsAscii(request)) return prints;
    Request composed = request;
    if (ChangePerson(composed, Form::kNfc)) prints.person = PersonOf(composed);
    return prints;
  }

  ledger::Digest PersonOf(const Request& request) const {
    KeyedHash own(hash);
    return PersonOf(own, Canonical(request));
  }
  ledger::Digest ContentOf(const Request& request) const {
    return KeyedHash(hash).Of("userintent/v1/content", Canonical(request).content());
  }

  KeyedHash hash;
  uint64_t id;

 private:
  static ledger::Digest PersonOf(KeyedHash& own, const Canonical& canonical) {
    return own.Of("userintent/v1/person", canonical.identity(), canonical.person_type());
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
