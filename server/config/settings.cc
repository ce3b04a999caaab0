#include "server/config/settings.h"

#include <algorithm>
#include <string_view>
#include <thread>

namespace userintent::config {

std::vector<Settings::KeyFile> Settings::previous_key_files() const {
  std::vector<KeyFile> files;
  if (ledger_previous_key_file.empty()) return files;
  std::string_view rest = ledger_previous_key_file;
  for (;;) {
    const size_t comma = rest.find(',');
    files.push_back({std::string(rest.substr(0, comma)), "--ledger_previous_key_file"});
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (files.size() == 1) return files;
  for (size_t i = 0; i < files.size(); ++i) files[i].what += " (file " + std::to_string(i + 1) + ')';
  return files;
}

Environment EnvironmentOf(std::string_view host) {
  for (const char* name : {"api.astra.finance", "secure.api.astra.finance", "app.astra.finance"}) {
    if (host == name) return Environment::kProduction;
  }
  for (const char* name :
       {"api-sandbox.astra.finance", "secure.api-sandbox.astra.finance", "app-sandbox.astra.finance"}) {
    if (host == name) return Environment::kSandbox;
  }
  return Environment::kNotSaid;
}

Environment Settings::astra_environment() const {
  return environment != Environment::kNotSaid ? environment : EnvironmentOf(astra_base_url.host);
}

std::optional<net::Origin> Settings::app_url() const {
  if (astra_app_url) return astra_app_url;
  if (astra_base_url.host == "api.astra.finance") return net::Origin{"app.astra.finance", 443};
  // A stand-in on this machine stands for Astra's sandbox.
  if (astra_base_url.host == "api-sandbox.astra.finance" || astra_base_url.loopback()) {
    return net::Origin{"app-sandbox.astra.finance", 443};
  }
  return std::nullopt;
}

absl::Duration Settings::lame_duck_time() const {
  if (lame_duck) return *lame_duck;
  return listen.loopback() ? absl::ZeroDuration() : std::min(absl::Seconds(5), drain_timeout / 2);
}

int Settings::shard_count() const {
  if (shards > 0) return shards;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
}

}  // namespace userintent::config
