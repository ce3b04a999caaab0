#include "tests/unit/postgres/postgres_server.h"

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/postgres/schema.h"

namespace userintent::postgres {
namespace {

constexpr int kOldest = 14;
constexpr char kAccount[] = "postgres";  // who runs it, as root does not; and the superuser of the server

[[noreturn]] void Give(const std::string& up) {
  std::fprintf(stderr, "tests' PostgreSQL: %s\n", up.c_str());
  std::abort();
}

// The directory of the programs; empty: there is none.
std::string Programs() {
  if (const char* const named = std::getenv("PG_BIN_DIR")) return named;
  std::string found;
  int newest = kOldest - 1;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
    int version = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &version) || version <= newest) continue;
    if (!std::filesystem::exists(entry.path() / "bin" / "initdb")) continue;
    newest = version;
    found = entry.path() / "bin";
  }
  return found;
}

std::string WhatIsMissing() {
  if (Programs().empty()) {
    return absl::StrCat("no PostgreSQL ", kOldest, " or newer in /usr/lib/postgresql; scripts/deps.sh installs it");
  }
  if (geteuid() == 0 && getpwnam(kAccount) == nullptr) return absl::StrCat("as root it needs a user ", kAccount);
  return "";
}

// Runs a program of PostgreSQL's, which ends with this one.
pid_t Run(const std::vector<std::string>& command, const std::string& log) {
  const passwd* const account = geteuid() == 0 ? getpwnam(kAccount) : nullptr;
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child != 0) return child;
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
  if (account != nullptr && (setgid(account->pw_gid) != 0 || setuid(account->pw_uid) != 0)) _exit(126);
  prctl(PR_SET_PDEATHSIG, SIGQUIT);
  if (getppid() != parent) _exit(126);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execv(words.front(), words.data());
  _exit(127);
}

}  // namespace

const std::string& PostgresServer::Missing() {
  static const auto* const missing = new std::string(WhatIsMissing());
  return *missing;
}

PostgresServer& PostgresServer::Get() {
  static PostgresServer server;
  return server;
}

PostgresServer::PostgresServer() {
  std::string name = "/tmp/ui-pg-XXXXXX";
  if (mkdtemp(name.data()) == nullptr) Give("no temporary directory");
  directory_ = name;
  if (geteuid() == 0) {
    const passwd* const account = getpwnam(kAccount);
    if (chown(directory_.c_str(), account->pw_uid, account->pw_gid) != 0) Give("no directory of its own");
  }
  const std::string log = absl::StrCat(directory_, "/log");
  const std::string data = absl::StrCat(directory_, "/data");
  const std::string programs = Programs();
  const pid_t made = Run(
      {programs + "/initdb", "-A", "trust", "-U", kAccount, "-E", "UTF8", "--no-locale", "--no-sync", "-D", data}, log);
  int status = 0;
  if (waitpid(made, &status, 0) != made || status != 0) Give(absl::StrCat("initdb failed; see ", log));
  process_ =
      Run({programs + "/postgres", "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + directory_,
           "-c", "max_connections=100", "-c", "shared_buffers=32MB", "-c", "autovacuum=off"},
          log);
  for (int tries = 0;; ++tries) {
    const auto connection = Connection::Open({Url("postgres"), "tests"});
    if (connection.ok()) break;
    if (tries == 1200 || waitpid(process_, &status, WNOHANG) != 0) Give(absl::StrCat("does not start; see ", log));
    absl::SleepFor(absl::Milliseconds(50));
  }
  const std::string base = Create("");
  if (absl::Status s = Migrate(*Connect(base)); !s.ok()) Give(s.ToString());
}

PostgresServer::~PostgresServer() {
  kill(process_, SIGQUIT);
  waitpid(process_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string PostgresServer::Url(const std::string& database) const {
  return absl::StrCat("postgresql://", kAccount, "@/", database, "?host=", directory_);
}

std::string PostgresServer::Create(const std::string& options) {
  const std::string name = absl::StrCat("ledger", databases_++);
  const absl::Status s = Connect(Url("postgres"))->Execute(absl::StrCat("CREATE DATABASE ", name, options));
  if (!s.ok()) Give(s.ToString());
  return Url(name);
}

std::string PostgresServer::NewDatabase() { return Create(" TEMPLATE ledger0"); }
std::string PostgresServer::NewEmptyDatabase() { return Create(""); }

std::unique_ptr<Connection> PostgresServer::Connect(const std::string& url) {
  auto connection = Connection::Open({url, "tests"});
  if (!connection.ok()) Give(connection.status().ToString());
  return *std::move(connection);
}

void PostgresTest::SetUp() {
  const std::string& missing = PostgresServer::Missing();
  if (missing.empty()) return;
  const char* const known = std::getenv("USERINTENT_NO_POSTGRES");
  if (known != nullptr && std::string_view(known) == "1") GTEST_SKIP() << "USERINTENT_NO_POSTGRES=1: " << missing;
  FAIL() << missing;
}

}  // namespace userintent::postgres
