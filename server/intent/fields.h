// fields: the fields of CreateUserIntentRequest that say who the person is, each in one row.
//
// Three places go through this list and have none of their own: the rules (rules.cc), the fingerprints
// (fingerprint.cc) and the body that Astra is sent (astra/json.cc). So a new field is one row here, and a new kind of
// field does not compile until rules.cc has its rule. A test compares the list with the fields that the proto has.
//
// Pure; any thread. The list is unrolled by the compiler: going through it costs no table and no indirect call.
#pragma once

#include <string>
#include <string_view>

#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::intent {

// What a value must look like (rules.cc has the rules).
enum class FieldKind {
  kEmail,
  kPhone,
  kRequiredText,
  kOptionalText,
  kStreetAddress,  // required text, and no PO box
  kSecondAddress,  // optional text, and no PO box
  kState,
  kPostalCode,
  kBirthday,
  kLastFour,
  kDeviceAddress,
  kCount,  // no kind: how many there are
};

// Text may hold any letters, so that it comes in several Unicode forms. The rules keep every other kind ASCII.
constexpr bool IsUnicodeText(FieldKind kind) {
  return kind == FieldKind::kRequiredText || kind == FieldKind::kOptionalText || kind == FieldKind::kStreetAddress ||
         kind == FieldKind::kSecondAddress;
}

// Which fingerprints a field counts in. Every field counts in the content.
enum class FieldScope {
  kEmail,    // the e-mail address, which is also part of the person
  kPerson,   // the person: two requests that are equal in all of these are about the same one
  kContent,  // the content alone
};

// Whether Astra's JSON holds an empty value.
enum class WhenEmpty { kLeftOut, kSent };

struct Field {
  int number;              // in the proto
  std::string_view name;   // in the proto
  std::string_view astra;  // in Astra's JSON
  FieldKind kind;
  FieldScope scope;
  WhenEmpty when_empty;
};

// ROW(name in the proto, the same in the names of constants, name at Astra, kind, scope, when empty), in the order of
// the contract's table, which is that of the field numbers. A later row never changes what an earlier one gives.
// Required fields are never empty once the rules hold; address2 is sent always: Astra documents "" for none and answers
// 400 to null.
#define USERINTENT_PERSON_FIELDS(ROW)                                                                     \
  ROW(email, Email, "email", kEmail, kEmail, kSent)                                                       \
  ROW(phone, Phone, "phone", kPhone, kPerson, kSent)                                                      \
  ROW(first_name, FirstName, "first_name", kRequiredText, kPerson, kSent)                                 \
  ROW(last_name, LastName, "last_name", kRequiredText, kPerson, kSent)                                    \
  ROW(preferred_first_name, PreferredFirstName, "preferred_first_name", kOptionalText, kPerson, kLeftOut) \
  ROW(preferred_last_name, PreferredLastName, "preferred_last_name", kOptionalText, kPerson, kLeftOut)    \
  ROW(preferred_pronouns, PreferredPronouns, "preferred_pronouns", kOptionalText, kPerson, kLeftOut)      \
  ROW(address1, Address1, "address1", kStreetAddress, kPerson, kSent)                                     \
  ROW(address2, Address2, "address2", kSecondAddress, kPerson, kSent)                                     \
  ROW(city, City, "city", kRequiredText, kPerson, kSent)                                                  \
  ROW(state, State, "state", kState, kPerson, kSent)                                                      \
  ROW(postal_code, PostalCode, "postal_code", kPostalCode, kPerson, kSent)                                \
  ROW(date_of_birth, DateOfBirth, "date_of_birth", kBirthday, kPerson, kLeftOut)                          \
  ROW(ssn_last_four, SsnLastFour, "ssn", kLastFour, kPerson, kLeftOut)                                    \
  ROW(ip_address, IpAddress, "ip_address", kDeviceAddress, kContent, kSent)

namespace fields {
// One type a row: the facts as a constant, and the value in a request.
#define USERINTENT_FIELD(proto_name, constant, astra_name, kind, scope, when_empty)                              \
  struct constant {                                                                                              \
    static constexpr Field kField{v1::CreateUserIntentRequest::k##constant##FieldNumber,                         \
                                  #proto_name,                                                                   \
                                  astra_name,                                                                    \
                                  FieldKind::kind,                                                               \
                                  FieldScope::scope,                                                             \
                                  WhenEmpty::when_empty};                                                        \
    static const std::string& Get(const v1::CreateUserIntentRequest& request) { return request.proto_name(); }   \
    static std::string* Mutable(v1::CreateUserIntentRequest& request) { return request.mutable_##proto_name(); } \
  };
USERINTENT_PERSON_FIELDS(USERINTENT_FIELD)
#undef USERINTENT_FIELD
}  // namespace fields

// Calls visit(row) for each row in their order; decltype(row) is one of the types above.
template <typename Visit>
constexpr void ForEachField(Visit visit) {
#define USERINTENT_VISIT(proto_name, constant, ...) visit(fields::constant());
  USERINTENT_PERSON_FIELDS(USERINTENT_VISIT)
#undef USERINTENT_VISIT
}
#undef USERINTENT_PERSON_FIELDS

constexpr size_t kFieldCount = [] {
  size_t count = 0;
  ForEachField([&](auto) { ++count; });
  return count;
}();

static_assert(
    [] {
      int last = 0;
      bool ordered = true;
      ForEachField([&](auto row) {
        ordered = ordered && row.kField.number > last;
        last = row.kField.number;
      });
      return ordered;
    }(),
    "rows stand in the order of their field numbers: violations and fingerprints come in it");

// The bytes of all values together.
inline size_t FieldBytes(const v1::CreateUserIntentRequest& request) {
  size_t bytes = 0;
  ForEachField([&](auto row) { bytes += row.Get(request).size(); });
  return bytes;
}

// Of metadata, which is no row: Astra's limit, and the key under which the gateway sends the id of its attempt.
constexpr size_t kMaxMetadataKeys = 25;
constexpr std::string_view kAttemptIdKey = "gateway_attempt_id";

}  // namespace userintent::intent
