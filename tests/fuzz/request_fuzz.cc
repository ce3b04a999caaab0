// A request's bytes -> ParseStrict -> Validate -> fingerprints and the JSON that Astra is sent.
//
// The oracle: what parses says the same when it is written and parsed again; Validate names exactly the fields that are
// wrong (put right, the request is valid); nlohmann reads the JSON back as exactly the request's fields.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/astra/json.h"
#include "server/base/utf8.h"
#include "server/intent/fields.h"
#include "server/intent/fingerprint.h"
#include "server/intent/rules.h"
#include "server/intent/text.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using intent::ParseStrict;
using intent::RulesOptions;
using intent::Violation;
using intent::WireProblem;
using Request = v1::CreateUserIntentRequest;

constexpr absl::CivilDay kToday(2026, 1, 31);
constexpr Uuid kAttempt{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

// The same through the wire once more; unknown fields are not written.
void CheckWritten(Request request, bool unknown) {
  if (unknown) request.DiscardUnknownFields();
  const std::string written = request.SerializeAsString();
  Request again;
  Check(ParseStrict(written, &again) == WireProblem::kNone, "what was parsed and written parses");
  Check(again.SerializeAsString().size() == written.size(), "and is the same");
  intent::ForEachField(
      [&](auto row) { Check(row.Get(again) == row.Get(request), "each field comes through the wire as it was"); });
}

std::vector<Violation> Violations(const Request& request, const RulesOptions& options) {
  return Timed([&] { return Validate(request, options, kToday); });
}

void PutRight(std::string_view field, Request& request) {
  if (field == "request_id") return request.set_request_id("2f1d9c1e-0000-4000-8000-000000000001");
  if (field == "supersedes_request_id") return request.clear_supersedes_request_id();
  if (field == "metadata") return request.clear_metadata();
  if (field == "verification_type") return request.set_verification_type(v1::VERIFICATION_TYPE_RECEIVE_ONLY);
  static const auto& kValid = *new std::map<std::string_view, std::string>{{"email", "sam@example.com"},
                                                                           {"phone", "+12025550123"},
                                                                           {"first_name", "Sam"},
                                                                           {"last_name", "Example"},
                                                                           {"preferred_first_name", ""},
                                                                           {"preferred_last_name", ""},
                                                                           {"preferred_pronouns", ""},
                                                                           {"address1", "1 Example Street"},
                                                                           {"address2", ""},
                                                                           {"city", "Exampleville"},
                                                                           {"state", "NY"},
                                                                           {"postal_code", "10001"},
                                                                           {"date_of_birth", "1990-02-28"},
                                                                           {"ssn_last_four", "1234"},
                                                                           {"ip_address", "8.8.4.4"}};
  const auto value = kValid.find(field);
  Check(value != kValid.end(), "a violation names a field of the proto");
  intent::ForEachField([&](auto row) {
    if (row.kField.name == field) *row.Mutable(request) = value->second;
  });
}

// Rules that can be told without the server's tables.
void CheckValid(const Request& request) {
  const std::string& email = request.email();
  Check(email.size() <= 254 && std::count(email.begin(), email.end(), '@') == 1, "an e-mail address has one @");
  intent::ForEachField([&](auto row) {
    const std::string& value = row.Get(request);
    Check(IsUtf8(value) && value.size() <= 400, "a valid value is UTF-8, and short");
    Check(std::none_of(value.begin(), value.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }),
          "a valid value has no control character");
  });
  for (const auto& [key, value] : request.metadata()) {
    Check(key.size() <= 64 && value.size() <= 1024, "metadata are short");
  }
}

nlohmann::json Expected(const Request& request, bool with_attempt) {
  nlohmann::json expected = nlohmann::json::object();
  intent::ForEachField([&](auto row) {
    if (row.kField.when_empty == intent::WhenEmpty::kSent || !row.Get(request).empty()) {
      expected[std::string(row.kField.astra)] = row.Get(request);
    }
  });
  static constexpr const char* kWords[] = {"", "verified", "unverified", "receive-only"};
  if (request.verification_type() != 0) expected["kyc_type"] = kWords[request.verification_type()];
  for (const auto& [key, value] : request.metadata()) expected["metadata"][key] = value;
  if (with_attempt && request.metadata_size() < 25) {
    expected["metadata"]["gateway_attempt_id"] = "01020304-0506-0708-090a-0b0c0d0e0f10";
  }
  return expected;
}

void CheckJson(const Request& request, bool with_attempt) {
  const std::string body = Timed([&] { return astra::RequestBody(request, with_attempt ? &kAttempt : nullptr); });
  Check(std::none_of(body.begin(), body.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }),
        "control characters are escaped");
  std::vector<std::vector<std::string>> names;  // of the objects that are open
  bool twice = false;
  const auto parsed = nlohmann::json::parse(
      body,
      [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
        using Event = nlohmann::json::parse_event_t;
        if (event == Event::object_start) names.emplace_back();
        if (event == Event::object_end) names.pop_back();
        if (event == Event::key) {
          std::vector<std::string>& seen = names.back();
          twice = twice || std::find(seen.begin(), seen.end(), value.get<std::string>()) != seen.end();
          seen.push_back(value.get<std::string>());
        }
        return true;
      },
      /*allow_exceptions=*/false);
  Check(!parsed.is_discarded(), "the body is JSON");
  Check(!twice, "no name stands twice in an object");
  Check(parsed == Expected(request, with_attempt), "the body says what the request says, and no more");
}

void CheckFingerprints(const Request& request) {
  static const auto& fingerprinter =
      *new intent::Fingerprinter(Secret(std::string(32, 'k')), {Secret(std::string(32, 'l'))});
  const ledger::Fingerprints prints = Timed([&] { return fingerprinter.Current(request); });
  const auto older = Timed([&] { return fingerprinter.Older(request); });
  Check(!older.empty() && older.front().email != prints.email, "another key makes another hash");
  Request composed = request;
  bool ascii = true;
  intent::ForEachField([&](auto row) {
    ascii = ascii && intent::IsAscii(row.Get(request));
    *row.Mutable(composed) = intent::Normalized(row.Get(request), intent::Form::kNfc);
  });
  for (auto& [key, value] : *composed.mutable_metadata()) {
    ascii = ascii && intent::IsAscii(value);
    value = intent::Normalized(value, intent::Form::kNfc);
  }
  const ledger::Fingerprints prints_composed = fingerprinter.Current(composed);
  Check(prints_composed.person == prints.person, "a person's text counts in NFC");
  Check(Timed([&] { return fingerprinter.DiffersInFormOnly(request, prints_composed.content); }) == !ascii,
        "the same text in NFC differs in form only, and where all is ASCII there are no forms");
  Request other = request;
  other.set_request_id("2f1d9c1e-0000-4000-8000-000000000002");
  other.set_validate_only(!request.validate_only());
  const ledger::Fingerprints same = fingerprinter.Current(other);
  Check(prints.content == same.content && prints.person == same.person, "ids and options are in no fingerprint");
  other.set_city(request.city() + "x");
  const ledger::Fingerprints differs = fingerprinter.Current(other);
  Check(prints.content != differs.content && prints.person != differs.person && prints.email == differs.email,
        "another city is another person at the same address");
}

}  // namespace

void Target(std::string_view input) {
  Request request;
  const WireProblem problem = Timed([&] { return ParseStrict(input, &request); });
  if (problem == WireProblem::kMalformed) return;
  CheckWritten(request, problem == WireProblem::kUnknownFields);

  const RulesOptions lax{.kyc_delegation = true, .allow_non_public_ip = true};
  const std::vector<Violation> strict = Violations(request, {});
  const std::vector<Violation> loose = Violations(request, lax);
  for (const Violation& violation : loose) {
    Check(std::any_of(strict.begin(), strict.end(), [&](const Violation& v) { return v.field == violation.field; }),
          "options only ever allow more");
  }
  for (const Violation& violation : strict) PutRight(violation.field, request);
  Check(Violations(request, {}).empty(), "a request is valid once the fields that were named are right");
  CheckValid(request);
  CheckFingerprints(request);
  CheckJson(request, true);
  CheckJson(request, false);
}

}  // namespace userintent::fuzz

#ifdef USERINTENT_FUZZ
#include "tests/fuzz/message_mutator.h"

// Half of the inputs stay messages: a value in them changes, and the lengths around it follow.
// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer calls it by this name.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned int seed) {
  userintent::v1::CreateUserIntentRequest request;
  return userintent::fuzz::MutateMessage(request, data, size, most, seed);
}
#endif
