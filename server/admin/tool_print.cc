#include "server/admin/tool_print.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/admin/tool_text.h"

namespace userintent::admin {

std::string Word(v1::RequestState state) { return v1::RequestState_Name(state).substr(sizeof("REQUEST_STATE_") - 1); }

const char* Meaning(const v1::Request& request) {
  switch (request.state()) {
    case v1::REQUEST_STATE_SENDING:
      return request.owner_gone() ? "its process is gone: the next start makes it UNKNOWN" : "it runs";
    case v1::REQUEST_STATE_SUCCEEDED:
      return "the User Intent exists";
    case v1::REQUEST_STATE_FAILED:
      return "not created; never sent again under this id";
    case v1::REQUEST_STATE_UNKNOWN:
      return "nobody knows; never sent again";
    case v1::REQUEST_STATE_RELEASED:
      return "not created; its caller may repeat it";
    default:
      return "";
  }
}

void Line(const char* name, const std::string& value) { absl::PrintF("%-14s %s\n", name, value); }

namespace {

std::string Webhooks(int64_t count) { return absl::StrCat(count, count == 1 ? " webhook" : " webhooks"); }

void PrintWebhooks(const v1::Request& request) {
  const char* name = "webhooks";
  for (const std::string& line : WebhookLines(request)) Line(std::exchange(name, ""), line);
}

void Print(const v1::Request& r, bool with_attempts = true) {
  Line("request", r.request_id());
  Line("caller", r.caller());
  Line("state", absl::StrCat(Word(r.state()), " (", Meaning(r), ")"));
  if (!r.user_intent_id().empty()) {
    Line("intent",
         r.astra_status().empty() ? r.user_intent_id() : absl::StrCat(r.user_intent_id(), " (", r.astra_status(), ")"));
  }
  if (r.has_status_time()) {
    Line("status since",
         absl::StrCat(When(r.status_time()),
                      r.has_read_time() ? absl::StrCat(", read ", When(r.read_time())) : ", never read"));
  }
  if (!r.user_id().empty()) Line("user", r.user_id());
  if (!r.reason().empty()) Line("reason", r.reason());
  Line("sent", r.sent());
  if (r.http_status() != 0) Line("astra status", absl::StrCat("HTTP ", r.http_status()));
  if (!r.astra_request_id().empty()) Line("astra request", r.astra_request_id());
  Line("attempt id", absl::StrCat(AttemptId(r), " (of ", r.posts(), r.posts() == 1 ? " POST)" : " POSTs, the last)"));
  if (with_attempts) {
    Line("attempts used",
         absl::StrCat(r.attempts_used_min(), " surely, ", r.attempts_used_max(), " at most, by its e-mail address"));
  }
  if (!r.supersedes_request_id().empty()) Line("supersedes", r.supersedes_request_id());
  if (!r.superseded_by_request_id().empty()) Line("superseded by", r.superseded_by_request_id());
  Line("recorded", absl::StrCat(When(r.create_time()), " (", Age(r.age()), " ago)"));
  Line("changed", When(r.update_time()));
  PrintWebhooks(r);
}

void Print(const v1::AuditEntry& e) {
  absl::PrintF("%s  %s %s  %s: %s -> %s, by %s: %s\n", When(e.time()), e.request_id(), e.caller(), e.action(),
               Word(e.from_state()), Word(e.to_state()), e.actor(), e.evidence());
}

std::string Outcome(v1::RequestState state, const std::string& intent) {
  return intent.empty() ? Word(state) : absl::StrCat(Word(state), " with the intent ", intent);
}

void Print(const v1::Conflict& c) {
  absl::PrintF("%s  %s %s  %s: recorded %s, but %s, by attempt %s: %s\n", When(c.time()), c.request_id(), c.caller(),
               c.action(), Outcome(c.recorded_state(), c.recorded_user_intent_id()),
               Outcome(c.claimed_state(), c.claimed_user_intent_id()), c.gateway_attempt_id(), c.evidence());
}

}  // namespace

void Print(const v1::ShowRequestResponse& response) {
  for (int i = 0; i < response.requests_size(); ++i) {
    if (i != 0) std::puts("");
    Print(response.requests(i));
  }
  if (response.audit_size() != 0) std::puts("");
  for (const v1::AuditEntry& entry : response.audit()) Print(entry);
  if (response.conflicts_size() != 0) std::puts("\nCONFLICT: Astra said otherwise, and nothing was changed");
  for (const v1::Conflict& conflict : response.conflicts()) Print(conflict);
}

void Print(const v1::ListUnresolvedResponse& response) {
  if (response.requests().empty()) {
    std::puts("none");
    return;
  }
  size_t widest = 6;
  for (const v1::Request& r : response.requests()) widest = std::max(widest, r.caller().size());
  const int width = static_cast<int>(widest);
  absl::PrintF("%-9s  %-20s  %-36s  %-*s  %-36s  %s\n", "AGE", "RECORDED", "REQUEST", width, "CALLER", "ATTEMPT ID",
               "NOTE");
  for (const v1::Request& r : response.requests()) {
    std::vector<std::string> notes;
    if (r.owner_gone()) notes.emplace_back("its process is gone");
    if (r.confirmed()) notes.emplace_back("Astra answered 2xx");
    if (!r.superseded_by_request_id().empty()) notes.emplace_back("superseded");
    if (const v1::WebhookEvidence& w = r.webhooks(); w.naming_count() != 0) {
      notes.push_back(absl::StrCat(Webhooks(w.naming_count()), w.naming_count() == 1 ? " names" : " name",
                                   " its attempt: ", Became(w.naming(0))));
    } else if (w.receiver_covers() && !r.gateway_attempt_id().empty()) {
      notes.push_back(absl::StrCat("none of the ", Webhooks(w.other_count()), " since then names it"));
    }
    std::string note;
    for (const std::string& one : notes) absl::StrAppend(&note, note.empty() ? "" : ", ", one);
    absl::PrintF("%-9s  %-20s  %-36s  %-*s  %-36s  %s\n", Age(r.age()), When(r.create_time()), r.request_id(), width,
                 r.caller(), AttemptId(r), note.empty() ? "-" : note);
  }
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.requests_size());
}

void Print(const v1::GetStatisticsResponse& s) {
  const auto with_age = [](int64_t count, bool any, const google::protobuf::Duration& age) {
    return any ? absl::StrCat(count, " (the oldest recorded ", Age(age), " ago)") : absl::StrCat(count);
  };
  Line("succeeded", absl::StrCat(s.succeeded()));
  Line("failed", absl::StrCat(s.failed()));
  Line("unknown", with_age(s.unknown(), s.has_oldest_unknown_age(), s.oldest_unknown_age()));
  Line("released", absl::StrCat(s.released()));
  Line("sending", with_age(s.sending(), s.has_oldest_sending_age(), s.oldest_sending_age()));
  Line("callers", absl::StrCat(s.callers()));
  Line("addresses", absl::StrCat(s.email_addresses(), ", of which ", s.email_addresses_at_limit(),
                                 " have surely used three attempts"));
  Line("audit entries", absl::StrCat(s.audit_entries()));
  Line("database",
       absl::StrCat(s.database_bytes(), " bytes, and ", s.log_bytes(), " of log; schema ", s.schema_version()));
  for (const v1::KeyUse& key : s.keys()) {
    std::string used;
    if (key.has_since()) used = absl::StrCat(", in use since ", When(key.since()));
    if (key.has_until()) absl::StrAppend(&used, " until ", When(key.until()));
    Line(&key == &s.keys(0) ? "keys" : "", absl::StrCat(key.key(), " ", key.role(), ": ", key.requests(),
                                                        key.requests() == 1 ? " request" : " requests", used));
  }
  Line("server", s.server_runs() ? "runs" : "does not run");
}

void Print(const v1::ResolveRequestResponse& response) {
  std::puts(response.changed() ? "resolved" : "it was so already; nothing was changed");
  Print(response.request());
}

void Print(const v1::ListAuditResponse& response) {
  if (response.entries().empty()) std::puts("none");
  for (const v1::AuditEntry& entry : response.entries()) Print(entry);
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.entries_size());
}

void Print(const v1::ListConflictsResponse& response) {
  if (response.conflicts().empty()) std::puts("none");
  for (const v1::Conflict& conflict : response.conflicts()) Print(conflict);
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.conflicts_size());
}

void Print(const v1::FindRequestsResponse& response) {
  for (int i = 0; i < response.requests_size(); ++i) {
    if (i != 0) std::puts("");
    Print(response.requests(i), false);
  }
  if (response.requests().empty()) std::puts("no request of this address");
  if (response.more()) absl::PrintF("there are more than these %d: --limit\n", response.requests_size());
  std::puts("");
  Line("attempts used", absl::StrCat(response.attempts_used_min(), " surely, ", response.attempts_used_max(),
                                     " at most, by this address"));
}

void Print(const v1::Copy& copy) {
  Line("requests", absl::StrCat(copy.requests(), ", of which ", copy.sending(), " were being sent"));
  Line("addresses", absl::StrCat(copy.email_addresses()));
  Line("audit entries", absl::StrCat(copy.audit_entries()));
  Line("last change", copy.has_last_change_time() ? When(copy.last_change_time()) : "none");
  Line("key", copy.key());
  Line("size", absl::StrCat(copy.bytes(), " bytes; schema ", copy.schema_version()));
}

void Print(const v1::BackUpResponse& response) {
  const auto seconds = [](const google::protobuf::Duration& d) {
    return absl::StrFormat("%.3f s", static_cast<double>(d.seconds()) + d.nanos() * 1e-9);
  };
  std::puts("backed up and checked");
  Line("file", response.path());
  Print(response.copy());
  Line("took", absl::StrCat(seconds(response.took()), "; calls waited ", seconds(response.longest_wait()),
                            " at most at a time"));
}

}  // namespace userintent::admin
