#include "server/admin/tool_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "server/base/text.h"
#include "server/ledger/mark.h"

namespace userintent::admin {

std::string TimeText(absl::Time time) { return ledger::TimeText(absl::ToUnixMicros(time)); }

std::string When(const google::protobuf::Timestamp& time) { return TimeText(absl::FromUnixSeconds(time.seconds())); }

std::string AttemptId(const v1::Request& request) {
  return request.gateway_attempt_id().empty() ? "Astra was not told one" : request.gateway_attempt_id();
}

std::string AgeText(absl::Duration age) {
  const int64_t s = std::max<int64_t>(0, absl::ToInt64Seconds(age));
  if (s < 60) return absl::StrCat(s, "s");
  if (s < 3600) return absl::StrCat(s / 60, "m ", s % 60, "s");
  if (s < 86400) return absl::StrCat(s / 3600, "h ", s / 60 % 60, "m");
  return absl::StrCat(s / 86400, "d ", s / 3600 % 24, "h");
}

std::string Age(const google::protobuf::Duration& age) { return AgeText(absl::Seconds(age.seconds())); }

std::string Became(const v1::Webhook& webhook) {
  const std::string result = webhook.result().empty() ? "nothing yet" : webhook.result();
  return webhook.waits() ? absl::StrCat(result, ", waits for another look") : result;
}

namespace {

// What it means that no webhook names the request's attempt. Never more than is known.
std::string NoneNames(const v1::Request& request) {
  const v1::WebhookEvidence& w = request.webhooks();
  if (request.gateway_attempt_id().empty()) return "none can: Astra was not told its attempt id";
  if (!w.has_receiver_since()) return "none; no webhook could be received yet";
  const std::string others = absl::StrCat(w.other_count(), " other", w.other_count() == 1 ? "" : "s");
  std::string text;
  if (w.receiver_covers()) {
    text = absl::StrCat("none, though the receiver was up without a gap since then: ", others, " came, none for it");
  } else if (w.has_receiver_until()) {
    text = absl::StrCat("none, but the receiver is not up since ", When(w.receiver_until()), ": ", others, " came");
  } else {
    text = absl::StrCat("none, but the receiver is up without a gap only since ", When(w.receiver_since()), ": ",
                        others, " came");
  }
  if (w.nameless_count() != 0) absl::StrAppend(&text, "; of these, ", w.nameless_count(), " without an attempt id");
  if (w.forgotten_before().seconds() > request.create_time().seconds()) {
    absl::StrAppend(&text, "; those from before ", When(w.forgotten_before()), " are forgotten");
  }
  return text;
}

// The one that all webhooks name; empty: none does, or they differ, or not all are known here.
std::string NamedIntent(const v1::WebhookEvidence& webhooks) {
  if (webhooks.naming().empty() || webhooks.naming_count() != webhooks.naming_size()) return "";
  const std::string& first = webhooks.naming(0).user_intent_id();
  const bool agree =
      std::ranges::all_of(webhooks.naming(), [&](const v1::Webhook& one) { return one.user_intent_id() == first; });
  return agree ? first : "";
}

}  // namespace

std::vector<std::string> WebhookLines(const v1::Request& request) {
  std::vector<std::string> lines;
  if (!request.has_webhooks()) return lines;
  const v1::WebhookEvidence& w = request.webhooks();
  if (w.naming_count() == 0) return {NoneNames(request)};
  for (const v1::Webhook& webhook : w.naming()) {
    lines.push_back(absl::StrCat(When(webhook.receive_time()), " ", webhook.webhook_id(), " (", webhook.webhook_type(),
                                 "), intent ", webhook.user_intent_id(), ": ", Became(webhook)));
  }
  if (w.naming_count() > w.naming_size()) {
    lines.push_back(absl::StrCat("and ", w.naming_count() - w.naming_size(), " older ones"));
  }
  return lines;
}

std::string ShellWord(const std::string& text) {
  constexpr std::string_view kPlain = "-_./:=,+@%";
  const bool plain =
      std::ranges::all_of(text, [&](char c) { return IsAlnum(c) || kPlain.find(c) != std::string_view::npos; });
  if (plain && !text.empty()) return text;
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

ResolveCommands CommandsFor(const v1::Request& request, const std::string& ledger) {
  std::string begin = "userintent-ledger ";
  if (!ledger.empty()) absl::StrAppend(&begin, ShellWord(absl::StrCat("--ledger=", ledger)), " ");
  absl::StrAppend(&begin, "resolve ", request.request_id(), " ", ShellWord(absl::StrCat("--caller=", request.caller())),
                  " ");
  constexpr char kEnd[] =
      R"( --actor="${USER:?says who settles it}" --evidence="${EVIDENCE:?says how it is known, a ticket for example}")";
  const std::string intent = NamedIntent(request.webhooks());
  const std::string created = intent.empty() ? R"(--created="${INTENT_ID:?is the id of the User Intent at Astra}")"
                                             : ShellWord(absl::StrCat("--created=", intent));
  return {absl::StrCat(begin, created, kEnd), absl::StrCat(begin, "--not_created", kEnd)};
}

}  // namespace userintent::admin
