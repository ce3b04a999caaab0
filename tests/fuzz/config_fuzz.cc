// The settings: a command line and an environment, single values, and the files that hold secrets and certificates.
//
// The first byte of an input says which of the three follows: 'f' a file, 'v' a value, else words, one a line, those of
// the environment behind an empty line. The oracle: what is read is written in a form that reads back the same; a
// problem is one line that never holds a value that was given.
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "server/base/certificates.h"
#include "server/base/secret_file.h"
#include "server/base/text.h"
#include "server/config/check.h"
#include "server/config/flags.h"
#include "server/net/ip_address.h"
#include "server/net/redirect_uri.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using config::Flags;
using config::Problems;
using config::ReadFlags;

// ---- words

// As a process gets them: no NUL inside, and a null pointer at the end.
std::vector<const char*> Pointers(const std::vector<std::string>& words) {
  std::vector<const char*> pointers;
  for (const std::string& word : words) pointers.push_back(word.c_str());
  pointers.push_back(nullptr);
  return pointers;
}

Flags Read(const std::vector<std::string>& words, const std::vector<std::string>& environment) {
  const std::vector<const char*> argv = Pointers(words);
  const std::vector<const char*> variables = Pointers(environment);
  return ReadFlags(static_cast<int>(words.size()), argv.data(), variables.data());
}

void CheckProblems(const Problems& problems) {
  for (const std::string& line : problems.lines()) {
    Check(!line.empty() && line.size() <= 512 && AllPrintable(line), "a problem is one line that can be read");
  }
}

// A mark behind each value: none may come out again.
constexpr std::string_view kMark = "#a value#";

std::string Marked(std::string word) {
  const size_t equals = word.find('=');
  if (equals == word.npos && word.starts_with("-")) return word;  // the name of a flag
  return word.append(kMark);
}

void CheckWords(Input input) {
  std::vector<std::string> words = {"userintent-server"};
  std::vector<std::string> environment;
  bool variables = false;
  while (!input.empty() && words.size() + environment.size() < 200) {
    std::string word(input.Until('\n'));
    word.resize(std::min(word.find('\0'), word.size()));
    if (word.empty()) {
      variables = true;
    } else if (variables) {
      environment.push_back(std::move(word));
    } else {
      words.push_back(std::move(word));
    }
  }
  Flags flags = Timed([&] { return Read(words, environment); });
  Timed([&] {
    CheckListener(flags.settings, flags.problems);
    CheckEnvironment(flags.settings, flags.problems);
    CheckUpstream(flags.settings, flags.problems);
    CheckAuthorization(flags.settings, nullptr, flags.problems);
    CheckRanges(flags.settings, flags.problems);
    CheckLedger(flags.settings, flags.problems);
    CheckMetrics(flags.settings, flags.problems);
    CheckWebhooks(flags.settings, flags.problems);
  });
  CheckProblems(flags.problems);
  Check(flags.WithSources(flags.problems).ok() == flags.problems.empty(), "a problem makes the status one");

  // A name may be told, and may hold the mark by chance.
  const auto holds_mark = [](const std::string& word) { return word.find("#a v") != word.npos; };
  if (std::any_of(words.begin(), words.end(), holds_mark)) return;
  if (std::any_of(environment.begin(), environment.end(), holds_mark)) return;
  for (std::string& word : words) word = Marked(std::move(word));
  for (std::string& word : environment) word = word.find('=') == word.npos ? word : Marked(std::move(word));
  const Flags marked = Timed([&] { return Read(words, environment); });
  for (const std::string& line : marked.problems.lines()) {
    Check(line.find(kMark) == line.npos, "a problem never holds a value");
  }
}

// ---- values

template <typename T>
void CheckValue(std::string_view text) {
  T value{};
  if (!Timed([&] { return config::Parse(text, &value); })) return;
  T again{};
  Check(config::Parse(config::Text(value), &again), "what was read is written in a form that can be read");
  Check(again == value, "and means the same");
}

void CheckAddresses(std::string_view text) {
  const std::optional<net::IpAddress> address = Timed([&] { return net::ParseIp(text); });
  if (address) {
    char shown[INET6_ADDRSTRLEN] = {};
    inet_ntop(address->size == 4 ? AF_INET : AF_INET6, address->bytes.data(), shown, sizeof shown);
    const std::optional<net::IpAddress> again = net::ParseIp(shown);
    Check(again && again->size == address->size && again->bytes == address->bytes, "an address is written and read");
    const bool device = Timed([&] { return net::IsDeviceAddress(*address); });
    Check(device == net::SpecialPurposeName(*address).empty(), "a device's address is in no special block");
    Check(!device || net::UpstreamKind(*address) == net::AddressKind::kPublic, "and is public");
  }
  net::Origin origin;
  if (Timed([&] { return net::ParseOrigin(text, &origin); })) {
    Check(!origin.host.empty() && origin.port != 0 && AllVisible(origin.host), "an origin has a host and a port");
    Check(origin.host.find_first_of("/@?#%\\") == std::string::npos, "and no user, path or escape");
  }
  if (Timed([&] { return net::IsRedirectUri(text); })) {
    Check(AllVisible(text) && text.find_first_of("#\"<>\\^`{|}") == text.npos, "a redirect URI is one by RFC 3986");
    Check(text.starts_with("https://") || text.starts_with("http://"), "and leads to a web server");
    const std::string_view host = text.substr(text.find("//") + 2);
    Check(host.substr(0, host.find_first_of("/?")).find('@') == host.npos, "without a user");
    if (text.starts_with("http://")) {
      Check(host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("["),
            "http on loopback only");
    }
  }
}

void CheckValues(std::string_view text) {
  CheckValue<bool>(text);
  CheckValue<int>(text);
  CheckValue<absl::Duration>(text);
  CheckValue<std::optional<bool>>(text);
  CheckValue<std::optional<absl::Time>>(text);
  CheckValue<net::HostPort>(text);
  CheckValue<net::Origin>(text);
  CheckValue<std::optional<net::Origin>>(text);
  CheckValue<config::RedirectUris>(text);
  CheckValue<config::RequestPath>(text);
  CheckValue<observe::Level>(text);
  CheckAddresses(text);
  const absl::StatusOr<astra::LimitRule> rule = Timed([&] { return astra::ParseLimitRule(text); });
  if (!rule.ok()) {
    Problems problems;
    problems.Add(rule.status());
    return CheckProblems(problems);
  }
  Check(rule->status >= 400 && rule->status <= 499 && !rule->substring.empty(), "a limit rule is one of a 4xx");
}

// ---- files

// In memory, and with the rights that a secret has.
class File {
 public:
  explicit File(std::string_view content) : fd_(memfd_create("file", MFD_CLOEXEC)) {
    if (fd_ < 0 || fchmod(fd_, 0600) != 0 ||
        write(fd_, content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
      Wrong("a file in memory can be made");
    }
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  const int fd_;
};

void CheckFile(std::string_view content) {
  const File file(content);
  std::string_view bare = content;
  if (bare.ends_with('\n')) {
    bare.remove_suffix(1);
    if (bare.ends_with('\r')) bare.remove_suffix(1);
  }
  const bool fits = content.size() <= size_t{64} * 1024;
  const absl::StatusOr<Secret> secret = Timed([&] { return ReadSecretFile(file.path(), "--a"); });
  Check(secret.ok() == (fits && !bare.empty()), "a secret is not empty, and at most 64 KiB");
  if (secret.ok()) Check(secret->Reveal() == bare, "and is the file without one newline");
  const absl::StatusOr<Secret> key = Timed([&] { return ReadLedgerKey(file.path(), "--a"); });
  Check(key.ok() == (fits && content.size() >= 32), "a key has 32 bytes or more");
  const absl::StatusOr<Certificates> certificates = Timed([&] { return ReadCertificateFile(file.path(), "--a"); });
  if (certificates.ok()) {
    Check(!certificates->parsed.empty() && certificates->pem == content, "a file of certificates holds one");
  } else {
    Problems problems;
    problems.Add(certificates.status());
    CheckProblems(problems);
  }
}

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  switch (input.Byte()) {
    case 'f':
      return CheckFile(input.Rest());
    case 'v':
      return CheckValues(input.Rest());
    default:
      return CheckWords(input);
  }
}

}  // namespace userintent::fuzz
