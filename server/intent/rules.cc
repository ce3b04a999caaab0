#include "server/intent/rules.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "server/base/text.h"
#include "server/base/uuid.h"
#include "server/intent/fields.h"
#include "server/intent/po_box.h"
#include "server/intent/text.h"
#include "server/net/ip_address.h"

// In this file: checks of one value (IsUuid to IsMetadata); what verification_type requires; the table of rules by kind
// of field; Validate.

namespace userintent::intent {
namespace {

using Request = v1::CreateUserIntentRequest;

constexpr size_t kMaxCharacters = 100;  // of names, address lines and city
constexpr size_t kMaxMetadataKey = 64;
constexpr size_t kMaxMetadataValue = 256;
constexpr absl::CivilDay kFirstBirthday(1900, 1, 1);

// "Publication 28", appendix B: 50 states, DC, territories, associated states; then military.
constexpr std::string_view kUspsCodes[] = {
    "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "FL", "GA", "HI", "ID", "IL", "IN", "IA", "KS", "KY",
    "LA", "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC", "ND",
    "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY",
    "DC",                          // District of Columbia
    "AS", "GU", "MP", "PR", "VI",  // territories
    "FM", "MH", "PW",              // freely associated states
    "AA", "AE", "AP",              // military and diplomatic
};
static_assert(std::size(kUspsCodes) == 62);

// A bit for each second letter, by first letter: the look-up form of kUspsCodes.
constexpr std::array<uint32_t, 26> kUspsBits = [] {
  std::array<uint32_t, 26> bits{};
  for (const std::string_view code : kUspsCodes) bits[static_cast<size_t>(code[0] - 'A')] |= 1u << (code[1] - 'A');
  return bits;
}();

bool IsUspsCode(std::string_view text) {
  return text.size() == 2 && IsUpper(text[0]) && IsUpper(text[1]) &&
         (kUspsBits[static_cast<size_t>(text[0] - 'A')] >> (text[1] - 'A') & 1) != 0;
}

bool IsUuid(std::string_view text) { return ParseUuid(text).has_value(); }

bool IsEmail(std::string_view text) {
  if (text.size() > 254 || !AllVisible(text)) return false;
  const size_t at = text.find('@');
  if (at == text.npos || at < 1 || at > 64) return false;
  const std::string_view domain = text.substr(at + 1);
  // Two or more labels, none empty: a dot inside, none at an end, no two in a row.
  return domain.find('@') == domain.npos && domain.find('.') != domain.npos && domain.front() != '.' &&
         domain.back() != '.' && domain.find("..") == domain.npos;
}

bool IsPhone(std::string_view text) {
  return text.size() == 12 && text[0] == '+' && text[1] == '1' && text[2] >= '2' && AllDigits(text.substr(2));
}

bool IsText(const TextTraits& traits) { return traits.valid && traits.safe && traits.characters <= kMaxCharacters; }
// Spaces alone pass: forms send them for a field that was left empty. Text that only looks empty is refused.
bool IsSeenOrSpaces(const TextTraits& traits) { return !traits.blank || traits.spaces; }
bool IsOptionalText(std::string_view text) {
  const TextTraits traits = InspectText(text);
  return IsText(traits) && IsSeenOrSpaces(traits);
}
bool IsRequiredText(std::string_view text) {
  const TextTraits traits = InspectText(text);
  return IsText(traits) && !traits.blank;  // the empty text is blank too
}

bool IsPostalCode(std::string_view text) {
  if (text.size() == 5) return AllDigits(text);
  return text.size() == 10 && text[5] == '-' && AllDigits(text.substr(0, 5)) && AllDigits(text.substr(6));
}

bool IsBirthday(std::string_view text, absl::CivilDay today) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  int parts[3] = {0, 0, 0};
  for (size_t i = 0, part = 0; i < text.size(); ++i) {
    if (i == 4 || i == 7) {
      ++part;
    } else if (!IsDigit(text[i])) {
      return false;
    } else {
      parts[part] = parts[part] * 10 + (text[i] - '0');
    }
  }
  // CivilDay moves a day that does not exist to one that does, so it comes back unchanged only if it was real.
  const absl::CivilDay day(parts[0], parts[1], parts[2]);
  return day.year() == parts[0] && day.month() == parts[1] && day.day() == parts[2] && day >= kFirstBirthday &&
         day <= today;
}

bool IsLastFour(std::string_view text) { return text.size() == 4 && AllDigits(text) && text != "0000"; }

// The form in which a dual-stack server sees the address of a device that came over IPv4.
bool IsIpv4Mapped(std::string_view text) {
  const std::optional<net::IpAddress> address = net::ParseIp(text);
  return address && net::IsIpv4Mapped(*address);
}

bool IsMetadataKey(std::string_view key) {
  return !key.empty() && key.size() <= kMaxMetadataKey && key != kAttemptIdKey &&
         std::all_of(key.begin(), key.end(), [](char c) { return IsAlnum(c) || c == '_' || c == '.' || c == '-'; });
}

bool IsMetadataValue(std::string_view value) {
  const TextTraits traits = InspectText(value);
  return traits.valid && traits.safe && traits.characters >= 1 && traits.characters <= kMaxMetadataValue &&
         IsSeenOrSpaces(traits);
}

bool IsMetadata(const google::protobuf::Map<std::string, std::string>& metadata) {
  if (metadata.size() > kMaxMetadataKeys) return false;
  return std::all_of(metadata.begin(), metadata.end(),
                     [](const auto& entry) { return IsMetadataKey(entry.first) && IsMetadataValue(entry.second); });
}

// A verification_type that is not in the enum requires neither field, because its requirements are unknown. A value
// that is given is checked all the same.
bool NeedsSsn(const Request& request) {
  return request.verification_type() == v1::VERIFICATION_TYPE_UNSPECIFIED ||
         request.verification_type() == v1::VERIFICATION_TYPE_VERIFIED;
}
bool NeedsBirthday(const Request& request) {
  return NeedsSsn(request) || request.verification_type() == v1::VERIFICATION_TYPE_UNVERIFIED;
}

struct Context {
  const RulesOptions& options;
  absl::CivilDay today;
};

// The rule of one kind of field. `value` is the field's own; the request says what verification_type asks for.
struct Rule {
  FieldKind kind;
  std::string_view description;
  bool (*holds)(std::string_view value, const Request&, const Context&);
};

constexpr std::string_view kRequestIdRule = "required: a UUID in the text form 8-4-4-4-12";
constexpr std::string_view kRequiredTextRule =
    "required: 1-100 characters, at least one of them visible, no control or bidirectional characters";
constexpr std::string_view kOptionalTextRule =
    "optional: at most 100 characters, not only invisible ones, no control or bidirectional characters";

constexpr auto kIsRequiredText = [](std::string_view v, const Request&, const Context&) { return IsRequiredText(v); };
constexpr auto kIsOptionalText = [](std::string_view v, const Request&, const Context&) { return IsOptionalText(v); };

// The contract's table, in the order of the kinds. Several rows for one kind: each is looked at only when those before
// it hold.
constexpr Rule kRules[] = {
    {FieldKind::kEmail,
     "required: one @, 1-64 characters before it, at most 254 in all, a domain of two or more labels; printable ASCII "
     "without spaces",
     [](std::string_view v, const Request&, const Context&) { return IsEmail(v); }},
    {FieldKind::kPhone, "required: +1 and ten digits, the first of them 2-9",
     [](std::string_view v, const Request&, const Context&) { return IsPhone(v); }},
    {FieldKind::kRequiredText, kRequiredTextRule, kIsRequiredText},
    {FieldKind::kOptionalText, kOptionalTextRule, kIsOptionalText},
    {FieldKind::kStreetAddress, kRequiredTextRule, kIsRequiredText},
    {FieldKind::kStreetAddress, "must be a street address, not a PO box",
     [](std::string_view v, const Request&, const Context&) { return !NamesPoBox(v) && !IsBareBox(v); }},
    {FieldKind::kSecondAddress, kOptionalTextRule, kIsOptionalText},
    {FieldKind::kSecondAddress, "must not be a PO box",
     [](std::string_view v, const Request&, const Context&) { return !NamesPoBox(v); }},
    {FieldKind::kState, "required: the two-letter USPS code in capitals",
     [](std::string_view v, const Request&, const Context&) { return IsUspsCode(v); }},
    {FieldKind::kPostalCode, "required: five digits, or five, a hyphen and four",
     [](std::string_view v, const Request&, const Context&) { return IsPostalCode(v); }},
    {FieldKind::kBirthday,
     "a calendar date YYYY-MM-DD from 1900-01-01 to today (UTC); required unless verification_type is RECEIVE_ONLY",
     [](std::string_view v, const Request& r, const Context& c) {
       return v.empty() ? !NeedsBirthday(r) : IsBirthday(v, c.today);
     }},
    {FieldKind::kLastFour,
     "exactly the last four digits, not 0000; required for VERIFIED and UNSPECIFIED unless the server has KYC "
     "delegation",
     [](std::string_view v, const Request& r, const Context& c) {
       return v.empty() ? c.options.kyc_delegation || !NeedsSsn(r) : IsLastFour(v);
     }},
    {FieldKind::kDeviceAddress, "required: the IPv4 or IPv6 address of the end user's device",
     [](std::string_view v, const Request&, const Context&) { return net::ParseIp(v).has_value(); }},
    {FieldKind::kDeviceAddress, "is an IPv4-mapped IPv6 address (::ffff:a.b.c.d): write it as IPv4 (a.b.c.d)",
     [](std::string_view v, const Request&, const Context& c) {
       return c.options.allow_non_public_ip || !IsIpv4Mapped(v);
     }},
    {FieldKind::kDeviceAddress, "must be public: private, reserved and other special-purpose ranges are refused",
     [](std::string_view v, const Request&, const Context& c) {
       if (c.options.allow_non_public_ip) return true;
       const auto address = net::ParseIp(v);
       return address.has_value() && net::IsDeviceAddress(*address);
     }},
};

// Where the rows of each kind begin, with the end of the table last. Does not compile unless every kind has a row.
constexpr size_t kKinds = static_cast<size_t>(FieldKind::kCount);
constexpr std::array<const Rule*, kKinds + 1> kRulesOf = [] {
  std::array<const Rule*, kKinds + 1> begins{};
  size_t kind = 0;
  for (const Rule& rule : kRules) {
    if (kind > 0 && rule.kind == static_cast<FieldKind>(kind - 1)) continue;
    if (rule.kind != static_cast<FieldKind>(kind)) throw "a kind of field without a rule, or out of order";
    begins[kind++] = &rule;
  }
  if (kind != kKinds) throw "a kind of field without a rule";
  begins[kKinds] = std::end(kRules);
  return begins;
}();

}  // namespace

std::vector<Violation> Validate(const Request& request, const RulesOptions& options, absl::CivilDay today_utc) {
  const Context context{options, today_utc};
  std::vector<Violation> violations;
  const auto check = [&](bool holds, std::string_view field, std::string_view description) {
    if (!holds) violations.push_back({field, description});
    return holds;
  };
  check(IsUuid(request.request_id()), "request_id", kRequestIdRule);
  ForEachField([&](auto row) {
    constexpr auto kKind = static_cast<size_t>(decltype(row)::kField.kind);
    for (const Rule* rule = kRulesOf[kKind]; rule != kRulesOf[kKind + 1]; ++rule) {
      if (!check(rule->holds(row.Get(request), request, context), row.kField.name, rule->description)) return;
    }
  });
  check(v1::VerificationType_IsValid(request.verification_type()), "verification_type",
        "must be a value of the enum VerificationType");
  check(IsMetadata(request.metadata()), "metadata",
        "at most 25 keys of 1-64 characters [a-zA-Z0-9_.-], none of them reserved; values of 1-256 characters, not "
        "only invisible ones, no control or bidirectional characters");
  check(request.supersedes_request_id().empty() || IsUuid(request.supersedes_request_id()), "supersedes_request_id",
        "optional: a UUID in the text form 8-4-4-4-12");
  return violations;
}

std::optional<Violation> ValidateRequestId(std::string_view request_id) {
  if (IsUuid(request_id)) return std::nullopt;
  return Violation{"request_id", kRequestIdRule};
}

}  // namespace userintent::intent
