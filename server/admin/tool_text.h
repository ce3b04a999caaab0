// What is known of an unresolved request, in words for an operator: as userintent-ledger prints it, and as /status
// shows it. Pure; any thread. No text holds personal data: there is none in the messages.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "userintent/admin/v1/ledger_admin_service.pb.h"

namespace userintent::admin {

// In UTC, to the second.
std::string TimeText(absl::Time time);
std::string When(const google::protobuf::Timestamp& time);
// In its two largest units: "3d 4h".
std::string AgeText(absl::Duration age);
std::string Age(const google::protobuf::Duration& age);
std::string AttemptId(const v1::Request& request);
// What came of a webhook, in a few words.
std::string Became(const v1::Webhook& webhook);
// What webhooks have to say about the request: one that names it a line, or why none does; empty where nobody asked.
std::vector<std::string> WebhookLines(const v1::Request& request);

// The text as one word of a POSIX shell.
std::string ShellWord(const std::string& text);

// The two commands by which an operator settles the request. What only he knows, the shell asks for: pasted without it,
// they end with its question and change nothing. The intent is filled in where all webhooks that name the request agree
// on it.
struct ResolveCommands {
  std::string created;
  std::string not_created;
};
// `ledger`: for --ledger; empty: the tool's own environment says which.
ResolveCommands CommandsFor(const v1::Request& request, const std::string& ledger);

}  // namespace userintent::admin
