#include "outcome.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace v1 = userintent::v1;
using nlohmann::json;

namespace {

json None() {
  return {{"ok", false},       {"code", ""},           {"reason", ""},      {"sent", ""},
          {"recovery", ""},    {"maybe_sent", false},  {"replayed", false}, {"violations", json::array()},
          {"used_min", 0},     {"used_max", 0},        {"limit", 0},        {"user_intent_id", ""},
          {"http_status", 0},  {"request_id", ""},     {"tries", 0},        {"unresolved_request_id", ""},
          {"state", ""},       {"retry_after_ms", -1}, {"elapsed_ms", 0},   {"not_repeated", ""},
          {"status", ""},      {"user_id", ""},        {"stale", false},    {"verification_type", ""},
          {"read_time", ""},   {"status_time", ""},    {"url", ""},         {"page", ""},
          {"final_status", ""}};
}

std::string Word(const std::string& name, const char* prefix) { return std::string(absl::StripPrefix(name, prefix)); }

// A time as text, seconds and nanoseconds.
std::string Instant(const google::protobuf::Timestamp& when) {
  return absl::StrCat(when.seconds(), ".", absl::Dec(when.nanos(), absl::kZeroPad9));
}

void SetIntent(const v1::UserIntent& intent, json* fields) {
  (*fields)["user_intent_id"] = intent.id();
  (*fields)["user_id"] = intent.user_id();
  (*fields)["status"] = Word(v1::UserIntentStatus_Name(intent.status()), "USER_INTENT_STATUS_");
  (*fields)["verification_type"] = Word(v1::VerificationType_Name(intent.verification_type()), "VERIFICATION_TYPE_");
  if (intent.has_status_time()) (*fields)["status_time"] = Instant(intent.status_time());
}

bool Empty(const json& value) {
  return value == json("") || value == json(0) || value == json(false) || (value.is_array() && value.empty());
}

// Of an answer.
Outcome Good(const google::protobuf::Message& answer, const std::string& request_id) {
  Outcome out;
  out.fields = None();
  out.texts = {userintent::Redacted(answer)};
  out.fields["ok"] = true;
  out.fields["code"] = "OK";
  out.fields["request_id"] = request_id;
  return out;
}

std::string PageName(v1::AuthorizationPage page) {
  return Word(v1::AuthorizationPage_Name(page), "AUTHORIZATION_PAGE_");
}

}  // namespace

Outcome Failed(const absl::Status& status) {
  const std::optional<userintent::Error> error = userintent::ErrorOf(status);
  if (!error.has_value()) throw Failure("an error of the library holds no Error: " + status.ToString());
  Outcome out;
  out.status = status;
  out.fields = None();
  out.texts = {Text(*error), status.ToString(), Text(status), std::string(status.message())};
  out.fields["code"] = absl::StatusCodeToString(error->code);
  out.fields["reason"] = error->reason;
  out.fields["sent"] = error->sent;
  out.fields["recovery"] = error->recovery;
  out.fields["maybe_sent"] = error->maybe_sent();
  out.fields["replayed"] = error->replayed;
  for (const userintent::Violation& violation : error->violations) out.fields["violations"].push_back(violation.field);
  const userintent::Attempts attempts = error->attempts.value_or(userintent::Attempts());
  out.fields["used_min"] = attempts.used_min;
  out.fields["used_max"] = attempts.used_max;
  out.fields["user_intent_id"] = error->user_intent_id;
  out.fields["unresolved_request_id"] = error->unresolved_request_id;
  out.fields["http_status"] = error->http_status.value_or(0);
  out.fields["request_id"] = error->request_id;
  out.fields["tries"] = error->tries;
  if (error->final_status != v1::USER_INTENT_STATUS_UNSPECIFIED) {
    out.fields["final_status"] = Word(v1::UserIntentStatus_Name(error->final_status), "USER_INTENT_STATUS_");
  }
  out.fields["not_repeated"] = error->not_repeated;
  if (error->retry_after.has_value()) out.fields["retry_after_ms"] = absl::ToInt64Milliseconds(*error->retry_after);
  return out;
}

Outcome Of(const absl::StatusOr<userintent::CreateResult>& created) {
  if (!created.ok()) return Failed(created.status());
  Outcome out;
  out.fields = None();
  out.texts = {Text(*created), userintent::Redacted(created->response)};
  out.fields["ok"] = true;
  out.fields["code"] = "OK";
  out.fields["replayed"] = created->replayed();
  out.fields["used_min"] = created->response.attempts().used_min();
  out.fields["used_max"] = created->response.attempts().used_max();
  out.fields["limit"] = created->response.attempts().limit();
  SetIntent(created->response.user_intent(), &out.fields);
  out.fields["request_id"] = created->request_id;
  out.fields["tries"] = created->tries;
  return out;
}

Outcome Of(const absl::StatusOr<v1::Creation>& creation) {
  if (!creation.ok()) return Failed(creation.status());
  Outcome out;
  out.fields = None();
  out.texts = {userintent::Redacted(*creation)};
  out.fields["ok"] = true;
  out.fields["code"] = "OK";
  out.fields["reason"] = creation->error().reason();
  out.fields["used_min"] = creation->attempts().used_min();
  out.fields["used_max"] = creation->attempts().used_max();
  out.fields["limit"] = creation->attempts().limit();
  SetIntent(creation->user_intent(), &out.fields);
  out.fields["request_id"] = creation->request_id();
  out.fields["state"] = Word(v1::CreationState_Name(creation->state()), "CREATION_STATE_");
  return out;
}

Outcome Of(const absl::StatusOr<v1::GetUserIntentResponse>& read, const std::string& request_id) {
  if (!read.ok()) return Failed(read.status());
  Outcome out;
  out.fields = None();
  out.texts = {userintent::Redacted(*read)};
  SetIntent(read->user_intent(), &out.fields);
  out.fields["ok"] = true;
  out.fields["code"] = "OK";
  out.fields["request_id"] = request_id;
  out.fields["stale"] = read->stale();
  if (read->has_read_time()) out.fields["read_time"] = Instant(read->read_time());
  return out;
}

Outcome Of(const absl::StatusOr<v1::UserIntent>& intent, const std::string& request_id) {
  if (!intent.ok()) return Failed(intent.status());
  Outcome out = Good(*intent, request_id);
  SetIntent(*intent, &out.fields);
  return out;
}

Outcome Of(const absl::StatusOr<v1::GetAuthorizationUrlResponse>& answer, const std::string& request_id) {
  if (!answer.ok()) return Failed(answer.status());
  Outcome out = Good(*answer, request_id);
  SetIntent(answer->user_intent(), &out.fields);
  out.fields["url"] = answer->url();
  out.fields["page"] = PageName(answer->page());
  return out;
}

Outcome Of(const absl::StatusOr<userintent::AuthorizationUrl>& made, const v1::UserIntent& intent) {
  if (!made.ok()) return Failed(made.status());
  Outcome out = Good(intent, "");
  SetIntent(intent, &out.fields);
  out.fields["url"] = made->url;
  out.fields["page"] = PageName(made->page);
  return out;
}

Outcome Of(const userintent::WatchEvent& event) {
  using Kind = userintent::WatchEvent::Kind;
  const v1::Creation& creation = event.creation;
  Outcome out;
  out.fields = {{"event", event.kind == Kind::kChanged  ? "changed"
                          : event.kind == Kind::kSynced ? "synced"
                                                        : "reset"},
                {"token", !event.resume_token.empty()},
                {"request_id", creation.request_id()},
                {"reason", creation.error().reason()},
                {"state", ""},
                {"user_intent_id", ""},
                {"status", ""},
                {"user_id", ""},
                {"verification_type", ""},
                {"status_time", ""}};
  if (event.kind == Kind::kChanged) {
    out.fields["state"] = Word(v1::CreationState_Name(creation.state()), "CREATION_STATE_");
  }
  if (creation.has_user_intent()) SetIntent(creation.user_intent(), &out.fields);
  out.texts = {userintent::Redacted(creation)};
  return out;
}

v1::UserIntentStatus StatusNamed(const std::string& name) {
  v1::UserIntentStatus status = v1::USER_INTENT_STATUS_UNSPECIFIED;
  if (!v1::UserIntentStatus_Parse("USER_INTENT_STATUS_" + name, &status)) throw Failure("no status " + name);
  return status;
}

bool Holds(const std::string& name, const json& got, const json& want) {
  if (want == json("*")) return !Empty(got);
  if (want.is_object()) {
    return got.is_number() && (!want.contains("min") || got >= want["min"]) &&
           (!want.contains("max") || got <= want["max"]);
  }
  if (want.is_array() && name == "violations") {
    std::vector<std::string> a = got;
    std::vector<std::string> b = want;
    std::sort(a.begin(), a.end());
    std::sort(b.begin(), b.end());
    return a == b && std::adjacent_find(a.begin(), a.end()) == a.end();
  }
  if (want.is_array()) {
    return std::any_of(want.begin(), want.end(), [&](const json& one) { return Holds(name, got, one); });
  }
  return got == want;
}
