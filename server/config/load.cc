#include "server/config/load.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "server/base/secret_file.h"
#include "server/config/check.h"
#include "server/config/check_policy.h"
#include "server/config/problems.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/look_at.h"

namespace userintent::config {
namespace {

// Moves the value out, or adds the problem.
template <typename T>
std::optional<T> Take(absl::StatusOr<T> read, Problems& problems) {
  problems.Add(read.status());
  if (!read.ok()) return std::nullopt;
  return *std::move(read);
}

// Null where the flags are not given, all three (CheckListener), or where there is a problem.
tls::Files ReadTls(const Settings& settings, Problems& problems) {
  if (settings.tls_cert_file.empty() || settings.tls_key_file.empty() || settings.tls_client_ca_file.empty()) {
    return {};
  }
  tls::Files files;
  files.certificate =
      Take(tls::ServerCertificate::Load(settings.tls_cert_file, settings.tls_key_file), problems).value_or(nullptr);
  files.authorities = Take(tls::ClientAuthorities::Load(
                               {settings.tls_client_ca_file, settings.tls_client_crl_file, settings.trust_domain}),
                           problems)
                          .value_or(nullptr);
  if (!files.certificate || !files.authorities) return {};
  return files;
}

// Null: there is none, or there is a problem.
std::unique_ptr<policy::PolicyFile> ReadPolicy(const Settings& settings, Problems& problems) {
  if (settings.policy_file.empty()) return nullptr;
  return Take(policy::PolicyFile::Load(settings.policy_file), problems).value_or(nullptr);
}

// Null: there is a problem.
std::unique_ptr<astra::Credentials> ReadCredentials(const Settings& settings, Problems& problems) {
  return Take(astra::Credentials::Load(settings.astra_client_id_file, settings.astra_client_secret_file), problems)
      .value_or(nullptr);
}

// Null: the system's, or there is a problem.
std::unique_ptr<http::CaFile> ReadAuthorities(const Settings& settings, Problems& problems) {
  if (settings.astra_ca_file.empty()) return nullptr;
  return Take(http::CaFile::Load(settings.astra_ca_file), problems).value_or(nullptr);
}

// Nothing: there is a problem.
std::optional<LedgerKeys> ReadLedgerKeys(const Settings& settings, Problems& problems) {
  bool all = true;
  LedgerKeys keys;
  const auto read = [&](const std::string& path, const std::string& what, std::string_view no_path) {
    std::optional<Secret> key =
        Take(path.empty() ? absl::InvalidArgumentError(what + ": " + std::string(no_path)) : ReadLedgerKey(path, what),
             problems);
    all = all && key.has_value();
    return std::move(key).value_or(Secret());
  };
  keys.current = read(settings.ledger_key_file, "--ledger_key_file", "required");
  for (const Settings::KeyFile& file : settings.previous_key_files()) {
    keys.previous.push_back(read(file.path, file.what, "the list names an empty path"));
  }
  if (!all) return std::nullopt;
  return keys;
}

// What the webhook door needs; nothing where there is none.
void ReadWebhookFiles(const Settings& settings, Loaded& loaded, Problems& problems) {
  if (settings.webhook_listen.empty()) return;
  loaded.webhook_keys =
      Take(webhook::Keys::Load({settings.webhook_secret_file, settings.webhook_previous_secret_file}), problems)
          .value_or(nullptr);
  if (settings.webhook_tls_cert_file.empty() || settings.webhook_tls_key_file.empty()) return;
  loaded.webhook_tls =
      Take(webhook::TlsIdentity::Load(settings.webhook_tls_cert_file, settings.webhook_tls_key_file), problems)
          .value_or(nullptr);
}

// The checks and the files, in the order of the table of flags.
Loaded LoadAll(Settings settings, Problems& problems) {
  Loaded loaded;
  CheckListener(settings, problems);
  loaded.tls = ReadTls(settings, problems);
  loaded.policy = ReadPolicy(settings, problems);
  CheckEnvironment(settings, problems);
  CheckUpstream(settings, problems);
  loaded.credentials = ReadCredentials(settings, problems);
  loaded.authorities = ReadAuthorities(settings, problems);
  const auto policy = loaded.policy ? loaded.policy->Snapshot().policy : nullptr;
  CheckAuthorization(settings, policy.get(), problems);
  CheckRanges(settings, problems);
  CheckLedger(settings, problems);
  loaded.ledger_keys = ReadLedgerKeys(settings, problems).value_or(LedgerKeys());
  CheckWebhooks(settings, problems);
  ReadWebhookFiles(settings, loaded, problems);
  CheckMetrics(settings, problems);
  CheckTraces(settings, problems);
  loaded.settings = std::move(settings);
  return loaded;
}

std::unique_ptr<policy::PolicyFile> ReadPolicyToAsk(const Settings& settings, Problems& problems) {
  // A check that passes because a variable was misspelt would be worse than none.
  if (settings.policy_file.empty()) problems.Add("policy_file", "--check_policy needs it");
  return ReadPolicy(settings, problems);
}

// The ledger's place and the file there, as far as that can be seen without changing anything.
absl::Status CheckLedgerPlace(const Loaded& loaded) {
  if (loaded.settings.ledger.kind != LedgerLocation::Kind::kSqlite) return absl::OkStatus();
  const intent::Fingerprinter fingerprinter(loaded.ledger_keys.current, loaded.ledger_keys.previous);
  std::vector<uint64_t> keys = fingerprinter.previous_key_ids();
  keys.insert(keys.begin(), fingerprinter.key_id());
  const absl::Status status =
      ledger::LookAt(loaded.settings.ledger.path, keys, Text(loaded.settings.astra_environment()));
  return status.ok() ? status : Problem("ledger", std::string(status.message()));
}

// Every line of a status, each with the program's name.
void PrintProblems(const absl::Status& status) {
  Problems problems;
  problems.Add(status);
  for (const std::string& line : problems.lines()) std::fprintf(stderr, "userintent-server: %s\n", line.c_str());
}

[[noreturn]] void AnswerAndExit(const Loaded& loaded) {
  const absl::StatusOr<PolicyAnswer> answer = CheckPolicy(*loaded.policy->Snapshot().policy, loaded.question);
  if (!answer.ok()) {
    PrintProblems(answer.status());
    std::exit(1);
  }
  std::printf("%s\n", answer->text.c_str());
  std::exit(answer->allowed ? 0 : 1);
}

}  // namespace

absl::StatusOr<Loaded> Load(Settings settings) {
  Problems problems;
  Loaded loaded = LoadAll(std::move(settings), problems);
  if (!problems.empty()) return problems.Joined();
  return loaded;
}

absl::StatusOr<Loaded> Load(int argc, const char* const* argv, const char* const* environment) {
  Flags flags = ReadFlags(argc, argv, environment);
  Loaded loaded;
  const bool complete = flags.action == Action::kServe || flags.action == Action::kCheckConfig;
  if (flags.understood && complete) {
    loaded = LoadAll(std::move(flags.settings), flags.problems);
  } else {
    if (flags.action == Action::kCheckPolicy && flags.problems.empty()) {
      loaded.policy = ReadPolicyToAsk(flags.settings, flags.problems);
    }
    loaded.settings = std::move(flags.settings);
  }
  loaded.action = flags.action;
  loaded.question = std::move(flags.question);
  const bool place_can_be_told = !loaded.ledger_keys.current.empty() && !flags.problems.Has("ledger");
  if (flags.action == Action::kCheckConfig && place_can_be_told) flags.problems.Add(CheckLedgerPlace(loaded));
  if (!flags.problems.empty()) return flags.WithSources(flags.problems);
  return loaded;
}

absl::StatusOr<tls::Files> LoadTls(const Settings& settings) {
  Problems problems;
  Settings without_callers = settings;  // a probe judges nobody
  without_callers.tls_client_crl_file.clear();
  without_callers.trust_domain = {};
  tls::Files tls = ReadTls(without_callers, problems);
  if (!problems.empty()) return problems.Joined();
  return tls;
}

Loaded LoadOrExit(int argc, char** argv) {
  absl::StatusOr<Loaded> loaded = Load(argc, argv, environ);
  if (!loaded.ok()) {
    PrintProblems(loaded.status());
    std::exit(1);
  }
  switch (loaded->action) {
    case Action::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      std::exit(0);
    case Action::kVersion:
      std::fputs(VersionText().c_str(), stdout);
      std::exit(0);
    case Action::kCheckConfig:
      for (const std::string& warning : Warnings(*loaded)) std::fprintf(stderr, "warning: %s\n", warning.c_str());
      std::fputs("the configuration is valid\n", stdout);
      std::exit(0);
    case Action::kCheckPolicy:
      AnswerAndExit(*loaded);
    case Action::kServe:
    case Action::kHealthcheck:
      break;
  }
  return *std::move(loaded);
}

}  // namespace userintent::config
