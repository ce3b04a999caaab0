#include "server/postgres/url.h"

#include <libpq-fe.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace userintent::postgres {
namespace {

// The options of a URL that it names; nothing: libpq does not understand it.
bool Parse(const std::string& url, Parameters& options) {
  char* why = nullptr;
  const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> all(PQconninfoParse(url.c_str(), &why),
                                                                           &PQconninfoFree);
  PQfreemem(why);  // it may hold a part of the URL
  if (all == nullptr) return false;
  for (const PQconninfoOption* option = all.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) options[option->keyword] = option->val;
  }
  return true;
}

bool OnlySockets(const std::string& hosts) {
  if (hosts.empty()) return true;  // libpq's own default
  for (const auto& host : absl::StrSplit(hosts, ',')) {
    if (host.empty() || host.front() != '/') return false;
  }
  return true;
}

}  // namespace

absl::Status CheckUrl(const std::string& url) {
  Parameters options;
  if (!Parse(url, options)) {
    return absl::InvalidArgumentError(
        "must be a URL that libpq understands: postgresql://user@host1,host2/database?...");
  }
  if (options.contains("password")) {
    return absl::InvalidArgumentError(
        "must hold no password, which others could read; use passfile=PATH in it, or a "
        "client certificate");
  }
  if (options["dbname"].empty()) return absl::InvalidArgumentError("names no database");
  // A file of the system's, which could name any host.
  if (options.contains("service")) return absl::InvalidArgumentError("must name its hosts itself, not a service");
  const bool network = !OnlySockets(options["host"]) || !options["hostaddr"].empty();
  if (network && options["sslmode"] != "verify-full") {
    return absl::InvalidArgumentError("needs sslmode=verify-full, because a host is reached over the network");
  }
  if (const std::string& file = options["passfile"]; !file.empty()) {
    struct stat info {};
    if (stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      return absl::InvalidArgumentError("its passfile is not a file that can be read");
    }
    if ((info.st_mode & 077) != 0) {
      return absl::InvalidArgumentError("its passfile can be read by others, so libpq does not use it; chmod 0600");
    }
  }
  return absl::OkStatus();
}

std::vector<Parameters> ServersOf(const std::string& url) {
  Parameters options;
  if (!Parse(url, options)) return {{{"dbname", url}}};
  const std::vector<std::string> hosts = absl::StrSplit(options["host"], ',');
  const std::vector<std::string> addresses = absl::StrSplit(options["hostaddr"], ',');
  const std::vector<std::string> ports = absl::StrSplit(options["port"], ',');
  const size_t count = std::max(hosts.size(), addresses.size());
  // As libpq has it: one port counts for all, and who has none of several has the usual one.
  const auto port_of = [&](size_t at) -> std::string {
    if (ports.size() == 1) return ports[0];
    return at < ports.size() && !ports[at].empty() ? ports[at] : "5432";
  };
  std::vector<Parameters> servers;
  for (size_t i = 0; i < count; ++i) {
    Parameters& one = servers.emplace_back(options);
    one["host"] = i < hosts.size() ? hosts[i] : "";
    one["hostaddr"] = i < addresses.size() ? addresses[i] : "";
    one["port"] = port_of(i);
    // Empty: libpq's own default.
    std::erase_if(one, [](const auto& parameter) { return parameter.second.empty(); });
  }
  return servers;
}

std::string PlaceOf(const std::string& url) {
  Parameters options;
  if (!Parse(url, options)) return "postgresql";
  return absl::StrCat("postgresql ", options["host"], "/", options["dbname"]);
}

}  // namespace userintent::postgres
