#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/load.h"
#include "server/http/client.h"
#include "tests/unit/config/certificates.h"

namespace userintent::config {
namespace {

using test::CertificateText;
using test::KeyPtr;
using test::KeyText;
using test::NewKey;
using testing::ElementsAre;
using testing::ExitedWithCode;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using Kind = LedgerLocation::Kind;

constexpr char kPolicy[] = R"({"version": 1, "callers": [{"name": "local", "methods": []},
    {"name": "spiffe://test.example/a", "methods": ["GetCreation"], "redirect_uris": ["https://test.example/done"]}]})";

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "config_test.XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
  }
  ~ConfigTest() override { std::filesystem::remove_all(directory_); }

  std::string File(const std::string& name, const std::string& content, mode_t mode = 0600) {
    const std::string path = (directory_ / name).string();
    std::ofstream(path, std::ios::binary) << content;
    chmod(path.c_str(), mode);
    return path;
  }

  // The least that is valid.
  Settings Valid() {
    Settings settings;
    settings.astra_client_id_file = File("id", "client-id\n");
    settings.astra_client_secret_file = File("secret", "CANARY:secret\n");
    settings.ledger_key_file = File("key", "0123456789abcdefghijklmnopqrstuv\n");
    return settings;
  }

  Settings ValidTls() {
    Settings settings = Valid();
    const KeyPtr key = NewKey();
    settings.tls_cert_file = File("tls.crt", CertificateText(key.get()), 0644);
    settings.tls_key_file = File("tls.key", KeyText(key.get()));
    settings.tls_client_ca_file = File("ca.crt", CertificateText(NewKey().get()), 0644);
    settings.policy_file = File("policy.json", kPolicy, 0644);
    settings.listen = {"0.0.0.0", 443};
    return settings;
  }

  // The three flags without which nothing starts.
  std::vector<std::string> Required() {
    const Settings settings = Valid();
    return {"--astra_client_id_file=" + settings.astra_client_id_file, "--astra_client_secret_file",
            settings.astra_client_secret_file, "-ledger_key_file=" + settings.ledger_key_file};
  }

  absl::StatusOr<Loaded> Load(const std::vector<std::string>& arguments,
                              const std::vector<std::string>& environment = {}) {
    std::vector<const char*> argv = {"userintent-server"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::vector<const char*> variables;
    for (const std::string& variable : environment) variables.push_back(variable.c_str());
    variables.push_back(nullptr);
    return config::Load(static_cast<int>(argv.size()), argv.data(), variables.data());
  }

  absl::StatusOr<Loaded> LoadMore(const std::vector<std::string>& arguments,
                                  const std::vector<std::string>& environment = {}) {
    std::vector<std::string> all = Required();
    all.insert(all.end(), arguments.begin(), arguments.end());
    return Load(all, environment);
  }

  // The text of the problem; empty: there is none.
  static std::string Problem(const absl::StatusOr<Loaded>& loaded) { return Problem(loaded.status()); }
  static std::string Problem(const absl::Status& status) {
    const std::string message(status.message());
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_THAT(message, Not(HasSubstr("CANARY")));
    return message;
  }

  std::filesystem::path directory_;
};

// --- where values come from

TEST_F(ConfigTest, DefaultsAreThoseOfTheContract) {
  const absl::StatusOr<Loaded> loaded = Load(Required());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->action, Action::kServe);
  const Settings& settings = loaded->settings;
  EXPECT_EQ(settings.listen.Text(), "127.0.0.1:50051");
  EXPECT_EQ(settings.tls_cert_file + settings.tls_key_file + settings.tls_client_ca_file + settings.policy_file, "");
  EXPECT_FALSE(settings.allow_plaintext);
  EXPECT_EQ(settings.astra_base_url.Text(), "https://api-sandbox.astra.finance");
  EXPECT_EQ(settings.astra_ca_file, "");
  EXPECT_FALSE(settings.allow_private_upstream);
  EXPECT_FALSE(settings.astra_limit_error.has_value());
  EXPECT_EQ(settings.app_url()->Text(), "https://app-sandbox.astra.finance");
  EXPECT_EQ(settings.oauth_redirect_uri, RedirectUris());
  EXPECT_EQ(settings.connect_timeout, absl::Seconds(3));
  EXPECT_EQ(settings.upstream_timeout, absl::Seconds(30));
  EXPECT_EQ(settings.upstream_connections, 32);
  EXPECT_EQ(settings.upstream_min_limit, 2);
  EXPECT_EQ(settings.upstream_max_limit(), 3200);
  EXPECT_EQ(settings.queue_limit, 1000);
  EXPECT_TRUE(settings.upstream_http2);
  EXPECT_EQ(settings.upstream_transport, http::Transport::kAuto);
  EXPECT_EQ(settings.max_connections, 0);
  EXPECT_EQ(settings.max_connections_per_address, 0);
  EXPECT_EQ(settings.memory_watermark, 0);
  EXPECT_EQ(settings.max_in_flight, 4096);
  EXPECT_EQ(settings.max_waiters_per_request, 64);
  EXPECT_EQ(settings.max_waiters_per_caller, 1024);
  EXPECT_EQ(settings.watch_streams, 1000);
  EXPECT_EQ(settings.watch_streams_per_caller, 100);
  EXPECT_EQ(settings.watch_history, 1000000);
  EXPECT_EQ(settings.webhook_queue, 10000);
  EXPECT_EQ(settings.max_connection_age, absl::Minutes(30));
  EXPECT_EQ(settings.default_deadline, absl::Seconds(35));
  EXPECT_EQ(settings.min_deadline, absl::Milliseconds(100));
  EXPECT_EQ(settings.ledger, (LedgerLocation{Kind::kSqlite, "data/ledger.db"}));
  EXPECT_EQ(settings.ledger_previous_key_file, "");
  EXPECT_EQ(settings.retention, absl::ZeroDuration());
  EXPECT_EQ(settings.released_retention, absl::Hours(720));
  EXPECT_TRUE(settings.upstream_breaker);
  EXPECT_EQ(settings.astra_read_rate, 20);
  EXPECT_EQ(settings.follow_up, absl::Hours(168));
  EXPECT_EQ(settings.email_attempt_limit, 3);
  EXPECT_FALSE(settings.kyc_delegation);
  EXPECT_FALSE(settings.allow_non_public_ip);
  EXPECT_EQ(settings.metrics_listen.Text(), "127.0.0.1:9464");
  EXPECT_TRUE(settings.otlp_endpoint.empty());
  EXPECT_FALSE(settings.send_traceparent);
  EXPECT_TRUE(settings.reflection_on());
  EXPECT_EQ(settings.drain_timeout, absl::Seconds(35));
  EXPECT_EQ(settings.lame_duck, std::nullopt);
  EXPECT_EQ(settings.shards, 0);
  EXPECT_GE(settings.shard_count(), 1);
  EXPECT_EQ(settings.log_level, observe::Level::kInfo);
  EXPECT_THAT(Warnings(*loaded), IsEmpty());
}

TEST_F(ConfigTest, EveryFlagArrivesFromTheCommandLineAndFromTheEnvironment) {
  const Settings files = ValidTls();
  struct Case {
    const char* flag;
    std::string value;
    std::function<bool(const Settings&)> arrived;
  };
  const Case cases[] = {
      {"listen", "[::1]:0",
       [](const Settings& c) {
         return c.listen == net::HostPort{"::1", 0};
       }},
      {"tls_cert_file", "/a", [](const Settings& c) { return c.tls_cert_file == "/a"; }},
      {"tls_key_file", "/a", [](const Settings& c) { return c.tls_key_file == "/a"; }},
      {"tls_client_ca_file", "/a", [](const Settings& c) { return c.tls_client_ca_file == "/a"; }},
      {"tls_client_crl_file", "/a", [](const Settings& c) { return c.tls_client_crl_file == "/a"; }},
      {"trust_domain", "a.example,b=/b",
       [](const Settings& c) {
         return c.trust_domain == TrustDomains{{{"a.example", ""}, {"b", "/b"}}};
       }},
      {"allow_plaintext", "true", [](const Settings& c) { return c.allow_plaintext; }},
      {"policy_file", "/a", [](const Settings& c) { return c.policy_file == "/a"; }},
      {"environment", "sandbox", [](const Settings& c) { return c.environment == Environment::kSandbox; }},
      {"astra_base_url", "https://Example.COM:8443",
       [](const Settings& c) {
         return c.astra_base_url == net::Origin{"example.com", 8443};
       }},
      {"astra_client_id_file", "/a", [](const Settings& c) { return c.astra_client_id_file == "/a"; }},
      {"astra_client_secret_file", "/a", [](const Settings& c) { return c.astra_client_secret_file == "/a"; }},
      {"astra_app_url", "https://Pages.example.com:8443",
       [](const Settings& c) {
         return c.app_url() == net::Origin{"pages.example.com", 8443};
       }},
      {"oauth_redirect_uri", "https://a.example/x,http://localhost:1/y",
       [](const Settings& c) {
         return c.oauth_redirect_uri == RedirectUris{{"https://a.example/x", "http://localhost:1/y"}};
       }},
      {"astra_ca_file", "/a", [](const Settings& c) { return c.astra_ca_file == "/a"; }},
      {"allow_private_upstream", "true", [](const Settings& c) { return c.allow_private_upstream; }},
      {"astra_limit_error", "400:a:b",
       [](const Settings& c) {
         return c.astra_limit_error && c.astra_limit_error->status == 400 && c.astra_limit_error->substring == "a:b";
       }},
      {"connect_timeout", "1.5s", [](const Settings& c) { return c.connect_timeout == absl::Milliseconds(1500); }},
      {"late_answer_window", "0", [](const Settings& c) { return c.late_answer_window == absl::ZeroDuration(); }},
      {"upstream_timeout", "1m30s", [](const Settings& c) { return c.upstream_timeout == absl::Seconds(90); }},
      {"upstream_connections", "7", [](const Settings& c) { return c.upstream_connections == 7; }},
      {"upstream_min_limit", "7", [](const Settings& c) { return c.upstream_min_limit == 7; }},
      {"queue_limit", "0", [](const Settings& c) { return c.queue_limit == 0; }},
      {"upstream_http2", "false", [](const Settings& c) { return !c.upstream_http2; }},
      {"upstream_transport", "libcurl",
       [](const Settings& c) { return c.upstream_transport == http::Transport::kLibcurl; }},
      {"max_connections", "9", [](const Settings& c) { return c.max_connections == 9; }},
      {"memory_watermark", "180", [](const Settings& c) { return c.memory_watermark == 180; }},
      {"max_connections_per_address", "5", [](const Settings& c) { return c.max_connections_per_address == 5; }},
      {"max_in_flight", "8", [](const Settings& c) { return c.max_in_flight == 8; }},
      {"max_waiters_per_request", "9", [](const Settings& c) { return c.max_waiters_per_request == 9; }},
      {"max_waiters_per_caller", "9", [](const Settings& c) { return c.max_waiters_per_caller == 9; }},
      {"watch_streams", "9", [](const Settings& c) { return c.watch_streams == 9; }},
      {"watch_streams_per_caller", "9", [](const Settings& c) { return c.watch_streams_per_caller == 9; }},
      {"watch_history", "5000", [](const Settings& c) { return c.watch_history == 5000; }},
      {"webhook_listen", "[::1]:0",
       [](const Settings& c) {
         return c.webhook_listen == net::HostPort{"::1", 0};
       }},
      {"webhook_path", "/a/b", [](const Settings& c) { return c.webhook_path.text == "/a/b"; }},
      {"webhook_tls_cert_file", "/a", [](const Settings& c) { return c.webhook_tls_cert_file == "/a"; }},
      {"webhook_tls_key_file", "/a", [](const Settings& c) { return c.webhook_tls_key_file == "/a"; }},
      {"webhook_secret_file", "/a", [](const Settings& c) { return c.webhook_secret_file == "/a"; }},
      {"webhook_previous_secret_file", "/a", [](const Settings& c) { return c.webhook_previous_secret_file == "/a"; }},
      {"webhook_connections", "9", [](const Settings& c) { return c.webhook_connections == 9; }},
      {"webhook_connections_per_address", "9",
       [](const Settings& c) { return c.webhook_connections_per_address == 9; }},
      {"webhook_queue", "9", [](const Settings& c) { return c.webhook_queue == 9; }},
      {"max_connection_age", "9m", [](const Settings& c) { return c.max_connection_age == absl::Minutes(9); }},
      {"default_deadline", "9s", [](const Settings& c) { return c.default_deadline == absl::Seconds(9); }},
      {"min_deadline", "10ms", [](const Settings& c) { return c.min_deadline == absl::Milliseconds(10); }},
      {"ledger", "memory:",
       [](const Settings& c) {
         return c.ledger == LedgerLocation{Kind::kMemory, ""};
       }},
      {"ledger_key_file", "/a", [](const Settings& c) { return c.ledger_key_file == "/a"; }},
      {"ledger_previous_key_file", "/a", [](const Settings& c) { return c.ledger_previous_key_file == "/a"; }},
      {"ledger_must_exist", "true", [](const Settings& c) { return c.ledger_must_exist; }},
      {"ledger_migrate", "true", [](const Settings& c) { return c.ledger_migrate; }},
      {"ledger_single_node", "true", [](const Settings& c) { return c.ledger_single_node; }},
      {"ledger_lease", "2s", [](const Settings& c) { return c.ledger_lease == absl::Seconds(2); }},
      {"ledger_fence", "20s", [](const Settings& c) { return c.ledger_fence == absl::Seconds(20); }},
      {"replica_name", "a", [](const Settings& c) { return c.replica_name == "a"; }},
      {"ledger_restored", "2026-01-31T09:30:00Z",
       [](const Settings& c) { return c.ledger_restored == absl::FromUnixSeconds(1769851800); }},
      {"retention", "9504h", [](const Settings& c) { return c.retention == absl::Hours(9504); }},
      {"released_retention", "24h", [](const Settings& c) { return c.released_retention == absl::Hours(24); }},
      {"upstream_breaker", "false", [](const Settings& c) { return !c.upstream_breaker; }},
      {"astra_read_rate", "0", [](const Settings& c) { return c.astra_read_rate == 0; }},
      {"follow_up", "90m", [](const Settings& c) { return c.follow_up == absl::Minutes(90); }},
      {"email_attempt_limit", "0", [](const Settings& c) { return c.email_attempt_limit == 0; }},
      {"kyc_delegation", "true", [](const Settings& c) { return c.kyc_delegation; }},
      {"allow_non_public_ip", "true", [](const Settings& c) { return c.allow_non_public_ip; }},
      {"metrics_listen", "", [](const Settings& c) { return c.metrics_listen.empty(); }},
      {"otlp_endpoint", "http://[::1]:4318",
       [](const Settings& c) {
         return c.otlp_endpoint == OtlpEndpoint{false, {"::1", 4318}};
       }},
      {"send_traceparent", "true", [](const Settings& c) { return c.send_traceparent; }},
      {"reflection", "false", [](const Settings& c) { return !c.reflection_on(); }},
      {"drain_timeout", "1s", [](const Settings& c) { return c.drain_timeout == absl::Seconds(1); }},
      {"lame_duck", "1s", [](const Settings& c) { return c.lame_duck == absl::Seconds(1); }},
      {"shards", "3", [](const Settings& c) { return c.shard_count() == 3; }},
      {"log_level", "debug", [](const Settings& c) { return c.log_level == observe::Level::kDebug; }},
  };
  size_t in_help = 0;
  for (size_t at = 0; (at = HelpText().find("(default: ", at)) != std::string::npos; ++at) ++in_help;
  EXPECT_EQ(std::size(cases), in_help) << "a flag is missing here";
  for (const Case& c : cases) {
    EXPECT_FALSE(c.arrived(Settings())) << c.flag << ": this case cannot fail";
    // --healthcheck parses without looking at the files.
    const absl::StatusOr<Loaded> flag = Load({"--healthcheck", "--" + std::string(c.flag) + '=' + c.value});
    ASSERT_TRUE(flag.ok()) << flag.status();
    EXPECT_TRUE(c.arrived(flag->settings)) << c.flag;
    std::string name = "USERINTENT_";
    for (const char* at = c.flag; *at != '\0'; ++at) name += static_cast<char>(std::toupper(*at));
    const absl::StatusOr<Loaded> variable = Load({"--healthcheck"}, {name + '=' + c.value});
    ASSERT_TRUE(variable.ok()) << variable.status();
    EXPECT_TRUE(c.arrived(variable->settings)) << name;
  }
}

TEST_F(ConfigTest, AFlagBeatsItsVariableEvenAWrongOne) {
  const auto loaded =
      LoadMore({"--max_in_flight=2"}, {"USERINTENT_MAX_IN_FLIGHT=x", "USERINTENT_SHARDS=4", "PATH=/bin"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->settings.max_in_flight, 2);
  EXPECT_EQ(loaded->settings.shards, 4);
}

TEST_F(ConfigTest, ACallLeavesNothingBehindForTheNext) {
  ASSERT_EQ(LoadMore({"--shards=5"})->settings.shards, 5);
  EXPECT_EQ(LoadMore({})->settings.shards, 0);
}

TEST_F(ConfigTest, ProblemsOfVariablesNameTheFlagAndTheVariableButNotTheValue) {
  EXPECT_EQ(Problem(LoadMore({}, {"USERINTENT_SHARDS=CANARY"})),
            "--shards: must be a whole number (set by USERINTENT_SHARDS)");
  EXPECT_EQ(Problem(LoadMore({}, {"USERINTENT_SHARDS=-1"})),
            "--shards: must be from 0 to 256 (set by USERINTENT_SHARDS)");
  EXPECT_THAT(Problem(LoadMore({}, {"USERINTENT_LISTEN="})), StartsWith("--listen: must be HOST:PORT"));
  EXPECT_EQ(Problem(LoadMore({}, {"USERINTENT_SHARDZ=CANARY"})),
            "USERINTENT_SHARDZ: unknown variable of the environment; no flag has this name");
  EXPECT_THAT(Problem(LoadMore({}, {"USERINTENT_=CANARY"})), StartsWith("USERINTENT_: unknown"));
  EXPECT_THAT(Problem(LoadMore({}, {"USERINTENT_shards=1"})), StartsWith("USERINTENT_shards: unknown"));
  EXPECT_THAT(Problem(LoadMore({}, {"USERINTENT_HELP=1"})), StartsWith("USERINTENT_HELP: unknown"));
  EXPECT_THAT(Problem(LoadMore({}, {"USERINTENT_A\nB=1"})), StartsWith("USERINTENT_A\\nB: unknown"));
  EXPECT_EQ(Problem(LoadMore({}, {"USERINTENTS=1", "XUSERINTENT_A=1"})), "");
}

TEST_F(ConfigTest, BooleansInEveryForm) {
  for (const char* form :
       {"--kyc_delegation", "-kyc_delegation", "--kyc_delegation=true", "--kyc_delegation=1", "--kyc_delegation=yes"}) {
    const auto loaded = LoadMore({form});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(loaded->settings.kyc_delegation) << form;
  }
  for (const char* form : {"--noreflection", "--reflection=false", "--reflection=0"}) {
    const auto loaded = LoadMore({form});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_FALSE(loaded->settings.reflection_on()) << form;
  }
  EXPECT_TRUE(LoadMore({"--reflection="})->settings.reflection_on());
  EXPECT_EQ(Problem(LoadMore({"--kyc_delegation=CANARY"})), "--kyc_delegation: must be true or false");
  EXPECT_THAT(Problem(LoadMore({"--kyc_delegation", "false"})), testing::HasSubstr("is no flag"));
  EXPECT_THAT(Problem(LoadMore({"--nokyc_delegation=true"})), StartsWith("--nokyc_delegation: there is no such flag"));
  EXPECT_THAT(Problem(LoadMore({"--noshards"})), StartsWith("--noshards: there is no such flag"));
}

TEST_F(ConfigTest, WrongCommandLines) {
  EXPECT_EQ(Problem(LoadMore({"--lisen=CANARY"})), "--lisen: there is no such flag; --help lists all");
  EXPECT_EQ(Problem(LoadMore({"--shards"})), "--shards: needs a value");
  EXPECT_EQ(Problem(LoadMore({"--shards", "--kyc_delegation"})), "--shards: needs a value");
  EXPECT_THAT(Problem(LoadMore({"serve"})), testing::HasSubstr("is no flag"));
  EXPECT_THAT(Problem(LoadMore({"--"})), testing::HasSubstr("is no flag"));
  EXPECT_THAT(Problem(LoadMore({"-"})), testing::HasSubstr("is no flag"));
  EXPECT_THAT(Problem(LoadMore({""})), testing::HasSubstr("is no flag"));
  EXPECT_THAT(Problem(LoadMore({"a\nb"})), testing::HasSubstr("is no flag"));
  EXPECT_LT(Problem(LoadMore({std::string(100000, 'x')})).size(), 300U);
  EXPECT_THAT(Problem(LoadMore({"--help=1"})), StartsWith("--help: takes no value"));
  // Abseil's own flags are not ours.
  for (const char* flag : {"--flagfile=x", "--fromenv=x", "--undefok=x", "--helpfull"}) {
    EXPECT_THAT(Problem(LoadMore({flag})), HasSubstr("there is no such flag")) << flag;
  }
}

TEST_F(ConfigTest, ValuesThatDoNotParse) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"listen",
       {"", ":50051", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:0x1", "127.0.0.1: 1",
        "::1:50051", "[::1]", "[::1]50051", "[127.0.0.1]:1", "example.com:1", "300.1.1.1:1", "127.1:1", "[::1%lo]:1",
        "unix:/tmp/x", "127.0.0.1:1 "}},
      {"metrics_listen", {":9464", "9464", "example.com:1"}},
      {"otlp_endpoint",
       {"localhost:4318", "http://", "https://a.example", "http://a.example", "https://a.example:4318/", "http://a:0",
        "grpc://a:4317", "http://u@a:4318", "http://[::1]", "https://a.example:4318/v1/traces"}},
      {"astra_base_url",
       {"",
        "api.example.com",
        "http://example.com",
        "https://",
        "https://example.com/",
        "https://example.com/v1",
        "https://example.com?x",
        "https://example.com#x",
        "https://u:p@example.com",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:443:443",
        "https://exa mple.com",
        "https://-a.example.com",
        "https://example..com",
        "https://example.com.",
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://1.2.3.4.5",
        "https://[::1",
        "https://[fe80::1%eth0]",
        "https://::1",
        "https://ex\xc3\xa4mple.com",
        "https://a_b.com",
        "https://example.com\r\nHost: x",
        "ftp://example.com",
        "https:/example.com"}},
      {"connect_timeout", {"", "3", "three", "3 s", "3sec", "1e3", "1dd", "1d-1h"}},
      {"max_in_flight", {"", "x", "1.5", "99999999999", "1k"}},
      {"ledger", {"", "data/ledger.db", "memory", "memory:x", "mysql://x", "SQLITE:x", "sqlite"}},
      {"log_level", {"", "INFO", "warning", "6"}},
      {"kyc_delegation", {"", "2", "ja"}},
      {"reflection", {"2", "auto"}},
  };
  for (const auto& [flag, values] : cases) {
    for (const char* value : values) {
      EXPECT_THAT(Problem(LoadMore({"--" + std::string(flag) + '=' + value})),
                  StartsWith("--" + std::string(flag) + ": must be "))
          << value;
    }
  }
  EXPECT_EQ(Problem(LoadMore({"--astra_base_url=https://CANARY:x@example.com"})),
            "--astra_base_url: must be https://host[:port] without path, query or user");
}

TEST_F(ConfigTest, Actions) {
  EXPECT_EQ(LoadMore({"--check_config"})->action, Action::kCheckConfig);
  EXPECT_EQ(Load({"--healthcheck"})->action, Action::kHealthcheck);
  EXPECT_THAT(Problem(LoadMore({"--check_config=true"})), StartsWith("--check_config: takes no value"));
  EXPECT_EQ(Load({"--check_config"}).status().message(),
            "--astra_client_id_file: required\n--astra_client_secret_file: required\n--ledger_key_file: required");
  EXPECT_THAT(Problem(LoadMore({"--check_config", "--healthcheck"})), StartsWith("--healthcheck: contradicts"));
  EXPECT_THAT(Problem(Load({"--healthcheck", "--shards=x"})), StartsWith("--shards: must be"));
  // Help and version answer whatever else is wrong.
  EXPECT_EQ(Load({"--nonsense", "-help", "--version"}, {"USERINTENT_X=1"})->action, Action::kHelp);
  EXPECT_EQ(Load({"--nonsense", "-h"}, {"USERINTENT_X=1"})->action, Action::kHelp);
  EXPECT_EQ(Load({"--nonsense", "--version"}, {"USERINTENT_X=1"})->action, Action::kVersion);
}

TEST_F(ConfigTest, HelpNamesEveryFlagOnceWithFormAndDefaultInTheContractsOrder) {
  const std::string help = HelpText();
  size_t last = 0;
  for (const char* line : {"  --listen=HOST:PORT  (default: 127.0.0.1:50051)\n",
                           "  --tls_cert_file=FILE  (default: none)\n",
                           "  --tls_key_file=FILE  (default: none)\n",
                           "  --tls_client_ca_file=FILE  (default: none)\n",
                           "  --allow_plaintext=true|false  (default: false)\n",
                           "  --policy_file=FILE  (default: none)\n",
                           "  --environment=sandbox|production  (default: none)\n",
                           "  --astra_base_url=https://HOST[:PORT]  (default: https://api-sandbox.astra.finance)\n",
                           "  --astra_client_id_file=FILE  (default: none)\n",
                           "  --astra_client_secret_file=FILE  (default: none)\n",
                           "  --astra_ca_file=FILE  (default: the system's)\n",
                           "  --allow_private_upstream=true|false  (default: false)\n",
                           "  --astra_limit_error=STATUS:SUBSTRING  (default: none)\n",
                           "  --connect_timeout=DURATION  (default: 3s)\n",
                           "  --upstream_timeout=DURATION  (default: 30s)\n",
                           "  --late_answer_window=DURATION  (default: 5m)\n",
                           "  --upstream_connections=NUMBER  (default: 32)\n",
                           "  --max_in_flight=NUMBER  (default: 4096)\n",
                           "  --max_waiters_per_request=NUMBER  (default: 64)\n",
                           "  --max_waiters_per_caller=NUMBER  (default: 1024)\n",
                           "  --default_deadline=DURATION  (default: 35s)\n",
                           "  --min_deadline=DURATION  (default: 100ms)\n",
                           "  --ledger=sqlite:PATH|postgresql://...|memory:  (default: sqlite:data/ledger.db)\n",
                           "  --ledger_key_file=FILE  (default: none)\n",
                           "  --email_attempt_limit=NUMBER  (default: 3)\n",
                           "  --kyc_delegation=true|false  (default: false)\n",
                           "  --allow_non_public_ip=true|false  (default: false)\n",
                           "  --metrics_listen=HOST:PORT  (default: 127.0.0.1:9464)\n",
                           "  --reflection=true|false  (default: true on loopback, else false)\n",
                           "  --drain_timeout=DURATION  (default: 35s)\n",
                           "  --lame_duck=DURATION  (default: 5s, on loopback 0)\n",
                           "  --log_level=LEVEL  (default: info)\n",
                           "  --check_config\n",
                           "  --healthcheck\n",
                           "  --help\n",
                           "  --version\n"}) {
    const size_t at = help.find(line);
    ASSERT_NE(at, std::string::npos) << line << help;
    EXPECT_GE(at, last) << line;
    EXPECT_EQ(help.find(line, at + 1), std::string::npos) << line;
    last = at;
  }
}

// LoadOrExit with these arguments, in a child.
[[noreturn]] void RunMain(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {"userintent-server"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  dup2(2, 1);  // the test sees stderr only
  LoadOrExit(static_cast<int>(words.size()), argv.data());
  _exit(77);  // it returned
}

TEST_F(ConfigTest, MainExits) {
  EXPECT_EXIT(RunMain({"--help"}), ExitedWithCode(0), "--listen=HOST:PORT");
  EXPECT_EXIT(RunMain({"--version"}), ExitedWithCode(0), "^userintent-server [0-9]+\\.[0-9]+\\.[0-9]+\n$");
  EXPECT_EXIT(RunMain({"-h"}), ExitedWithCode(0), "--listen=HOST:PORT");
  EXPECT_EXIT(RunMain({}), ExitedWithCode(1),
              "^userintent-server: --astra_client_id_file: required\n"
              "userintent-server: --astra_client_secret_file: required\n"
              "userintent-server: --ledger_key_file: required\n$");
  std::vector<std::string> arguments = Required();
  arguments.emplace_back("--lisen=1");
  EXPECT_EXIT(RunMain(arguments), ExitedWithCode(1),
              "^userintent-server: --lisen: there is no such flag; --help lists all\n$");
  arguments.pop_back();
  EXPECT_EXIT(RunMain(arguments), ExitedWithCode(77), "");
  arguments.emplace_back("--check_config");
  EXPECT_EXIT(RunMain(arguments), ExitedWithCode(0), "^the configuration is valid\n$");
  arguments.emplace_back("--ledger=memory:");
  EXPECT_EXIT(RunMain(arguments), ExitedWithCode(0), "^warning: --ledger: memory: forgets");
  const std::string policy = "--policy_file=" + File("policy", kPolicy);
  EXPECT_EXIT(RunMain({policy, "--check_policy=local,GetCreation"}), ExitedWithCode(1),
              "^denied: rule \"local\" does not list GetCreation\n$");
  EXPECT_EXIT(RunMain({"--check_policy", "spiffe://test.example/a,GetCreation", policy}), ExitedWithCode(0),
              "^allowed: rule \"spiffe://test.example/a\"\n$");
  EXPECT_EXIT(RunMain({policy, "--check_policy=CANARY"}), ExitedWithCode(1),
              "^userintent-server: --check_policy: must be CALLER,METHOD, for example [^\n]*\n$");
}

// --- what is checked

// Applies a change to a valid configuration and tells the problem.
#define PROBLEM_OF(settings, change) \
  [&] {                              \
    Settings c = settings;           \
    change;                          \
    return Problem(config::Load(c)); \
  }()

TEST_F(ConfigTest, ListeningOffLoopbackNeedsTlsOrConsent) {
  for (const char* host : {"0.0.0.0", "::", "8.8.8.8", "192.168.1.1", "2606:4700::1"}) {
    EXPECT_THAT(PROBLEM_OF(Valid(), (c.listen = {host, 1})), StartsWith("--listen: off loopback needs")) << host;
    EXPECT_EQ(PROBLEM_OF(Valid(), (c.listen = {host, 1}, c.allow_plaintext = true)), "") << host;
    EXPECT_EQ(PROBLEM_OF(ValidTls(), (c.listen = {host, 1})), "") << host;
  }
  for (const char* host : {"127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"}) {
    EXPECT_EQ(PROBLEM_OF(Valid(), (c.listen = {host, 0})), "") << host;
  }
  EXPECT_THAT(PROBLEM_OF(Valid(), c.listen = {}), StartsWith("--listen: must be"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.allow_plaintext = true), StartsWith("--allow_plaintext: contradicts"));
}

TEST_F(ConfigTest, WebhooksOffLoopbackNeedTlsOrConsent) {
  const net::HostPort off_loopback{"0.0.0.0", 1};
  EXPECT_EQ(PROBLEM_OF(Valid(), (c.webhook_listen = {"127.0.0.1", 0})), "");
  EXPECT_THAT(PROBLEM_OF(Valid(), c.webhook_listen = off_loopback), StartsWith("--webhook_listen: off loopback needs"));
  EXPECT_EQ(PROBLEM_OF(Valid(), (c.webhook_listen = off_loopback, c.allow_plaintext = true)), "");
  EXPECT_EQ(PROBLEM_OF(ValidTls(), (c.webhook_listen = off_loopback, c.allow_plaintext = true)), "")
      << "for the webhooks, beside callers with TLS";
  EXPECT_THAT(PROBLEM_OF(ValidTls(), (c.webhook_listen = {"127.0.0.1", 0}, c.allow_plaintext = true)),
              StartsWith("--allow_plaintext: contradicts"));
  const auto loaded = config::Load([&] {
    Settings c = Valid();
    c.webhook_listen = off_loopback, c.allow_plaintext = true;
    return c;
  }());
  ASSERT_TRUE(loaded.ok());
  EXPECT_THAT(Warnings(*loaded), ElementsAre(StartsWith("--webhook_listen: takes webhooks without TLS")));
}

TEST_F(ConfigTest, WhatTheWebhookDoorNeedsIsRead) {
  const KeyPtr key = NewKey();
  const std::string certificate = File("hook.crt", CertificateText(key.get()), 0644);
  const std::string key_file = File("hook.key", KeyText(key.get()));
  const std::string secret = File("hook.secret", "a key\n");
  const auto with = [&](auto change) {
    Settings c = Valid();
    c.webhook_listen = {"127.0.0.1", 0};
    change(c);
    return config::Load(c);
  };
  const auto loaded =
      with([&](Settings& c) { c.webhook_tls_cert_file = certificate, c.webhook_tls_key_file = key_file; });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_NE(loaded->webhook_keys, nullptr);
  EXPECT_NE(loaded->webhook_tls, nullptr);
  const auto none = config::Load(Valid());
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->webhook_keys, nullptr);

  EXPECT_THAT(Problem(with([&](Settings& c) { c.webhook_tls_cert_file = certificate; })),
              StartsWith("--webhook_tls_key_file: missing"));
  EXPECT_THAT(Problem(with([&](Settings& c) {
                c.webhook_tls_cert_file = certificate;
                c.webhook_tls_key_file = File("other.key", KeyText(NewKey().get()));
              })),
              StartsWith("--webhook_tls_key_file: is not the key of"));
  EXPECT_THAT(Problem(with([&](Settings& c) {
                c.webhook_tls_cert_file = certificate;
                c.webhook_tls_key_file = File("locked.key", KeyText(key.get(), true));
              })),
              StartsWith("--webhook_tls_key_file: holds no private key"));
  EXPECT_THAT(Problem(with([&](Settings& c) { c.webhook_secret_file = "/nowhere"; })),
              StartsWith("--webhook_secret_file: "));
  EXPECT_THAT(Problem(with([&](Settings& c) { c.webhook_secret_file = c.webhook_previous_secret_file = secret; })),
              StartsWith("--webhook_previous_secret_file: contradicts"));
  EXPECT_EQ(PROBLEM_OF(Valid(), c.webhook_secret_file = secret), "--webhook_secret_file: needs --webhook_listen");
  EXPECT_THAT(Problem(with([](Settings& c) {
                c.listen = c.webhook_listen = {"127.0.0.1", 4711};
              })),
              StartsWith("--webhook_listen: is the address of"));
  for (const char* const path : {"", "a", "/a b", "/a?b", "/a%2f", "/\n"}) {
    EXPECT_THAT(Problem(LoadMore({std::string("--webhook_path=") + path})), StartsWith("--webhook_path: must begin"));
  }
}

TEST_F(ConfigTest, TlsFilesGoTogetherAndFit) {
  EXPECT_EQ(PROBLEM_OF(ValidTls(), {}), "");
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_cert_file = ""), StartsWith("--tls_cert_file: missing"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_key_file = ""), StartsWith("--tls_key_file: missing"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_client_ca_file = ""), StartsWith("--tls_client_ca_file: missing"));
  const std::string none = (directory_ / "CANARY").string();
  EXPECT_EQ(PROBLEM_OF(ValidTls(), c.tls_cert_file = none),
            "--tls_cert_file: cannot open the file: No such file or directory");
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_key_file = none), StartsWith("--tls_key_file: cannot open"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_client_ca_file = none), StartsWith("--tls_client_ca_file: cannot open"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_client_ca_file = directory_.string()),
              StartsWith("--tls_client_ca_file: cannot read the file, or"));

  const std::string text = File("text", "CANARY, not PEM");
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_cert_file = text), StartsWith("--tls_cert_file: holds no certificate"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_key_file = text), StartsWith("--tls_key_file: holds no private key"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_client_ca_file = text), StartsWith("--tls_client_ca_file: holds no cert"));

  const KeyPtr other = NewKey();
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_key_file = File("other", KeyText(other.get()))),
              StartsWith("--tls_key_file: is not the key of"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), c.tls_key_file = File("locked", KeyText(other.get(), true))),
              StartsWith("--tls_key_file: holds no private key in PEM form without a passphrase"));
  EXPECT_THAT(PROBLEM_OF(ValidTls(), chmod(c.tls_key_file.c_str(), 0644)),
              StartsWith("--tls_key_file: others may read"));
  EXPECT_EQ(PROBLEM_OF(ValidTls(), chmod(c.tls_key_file.c_str(), 0440)), "");
}

TEST_F(ConfigTest, BundlesOfCertificatesAreReadToTheEnd) {
  const std::string one = CertificateText(NewKey().get());
  const std::string two = CertificateText(NewKey().get());
  std::string damaged = two;
  damaged.replace(damaged.size() / 2, 8, "!!!!!!!!");
  EXPECT_EQ(PROBLEM_OF(Valid(), c.astra_ca_file = File("ca", "text before\n" + one + "text between\n" + two + "after")),
            "");
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_ca_file = File("ca", one + damaged)),
              StartsWith("--astra_ca_file: holds a damaged certificate"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_ca_file = File("ca", "")), StartsWith("--astra_ca_file: holds no"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_ca_file = File("ca", std::string(3 << 20, 'x'))),
              StartsWith("--astra_ca_file: the file is larger"));
}

TEST_F(ConfigTest, CredentialsAreCheckedWithoutShowingThem) {
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_id_file = ""), StartsWith("--astra_client_id_file: required"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_secret_file = ""), StartsWith("--astra_client_secret_file: required"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_id_file = "/CANARY"),
              StartsWith("--astra_client_id_file: cannot open"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_id_file = File("x", "CANARY:colon")),
              StartsWith("--astra_client_id_file: a client id must not contain a colon"));
  EXPECT_EQ(PROBLEM_OF(Valid(), c.astra_client_secret_file = File("x", "with:colon")), "");
  for (const char* content : {"CANARY\nCANARY\n", "CANARY\t", "CANARY\n\n"}) {
    EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_secret_file = File("x", content)),
                StartsWith("--astra_client_secret_file: the file contains a control character"));
  }
  for (const char* content : {"", "\n"}) {
    EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_client_secret_file = File("x", content)),
                StartsWith("--astra_client_secret_file: the file is empty"));
  }
  EXPECT_THAT(PROBLEM_OF(Valid(), chmod(c.astra_client_secret_file.c_str(), 0604)),
              StartsWith("--astra_client_secret_file: others may read"));
  EXPECT_THAT(PROBLEM_OF(Valid(), chmod(c.ledger_key_file.c_str(), 0644)), StartsWith("--ledger_key_file: others may"));
}

TEST_F(ConfigTest, LedgerKeysAreLong) {
  EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_key_file = ""), StartsWith("--ledger_key_file: required"));
  const std::string short_key = "0123456789abcdefghijklmnopqrst\n";
  EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_key_file = File("x", short_key)),
              StartsWith("--ledger_key_file: must hold 32"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_previous_key_file = File("x", short_key)),
              StartsWith("--ledger_previous_key_file: must hold 32"));
  // One random key in 256 ends in the byte that is taken for a newline; it must be as good as the others.
  std::string binary = "\n";
  for (int i = 30; i >= 0; --i) binary.insert(binary.begin(), static_cast<char>(i * 8));
  ASSERT_EQ(binary.size(), 32u);
  EXPECT_EQ(PROBLEM_OF(Valid(), c.ledger_key_file = File("x", binary)), "");
  EXPECT_EQ(PROBLEM_OF(Valid(), c.ledger_previous_key_file = File("x", binary)), "");
}

TEST_F(ConfigTest, PreviousKeysAreAList) {
  Settings settings;
  EXPECT_TRUE(settings.previous_key_files().empty());
  settings.ledger_previous_key_file = "/a,b";
  ASSERT_EQ(settings.previous_key_files().size(), 2u);
  EXPECT_EQ(settings.previous_key_files()[0].path, "/a");
  EXPECT_EQ(settings.previous_key_files()[1].path, "b");
  const std::string key(48, 'k');
  const std::string second = File("second", "another key of thirty-two or more bytes");
  EXPECT_EQ(PROBLEM_OF(Valid(), c.ledger_previous_key_file = File("first", key) + ',' + second), "");
  EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_previous_key_file = File("first", key) + ',' + File("x", "short")),
              StartsWith("--ledger_previous_key_file (file 2): must hold 32"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_previous_key_file = second + ",/nowhere/key," + second),
              StartsWith("--ledger_previous_key_file (file 2): cannot open"));
  for (const std::string& list : {second + ',', ',' + second, absl::StrCat(second, ",,", second)}) {
    EXPECT_THAT(PROBLEM_OF(Valid(), c.ledger_previous_key_file = list), HasSubstr("empty path"));
  }
}

TEST_F(ConfigTest, UpstreamAddresses) {
  for (const char* url :
       {"https://10.1.2.3", "https://172.16.0.1", "https://172.31.255.255", "https://192.168.0.1:8443",
        "https://169.254.169.254", "https://100.64.0.1", "https://198.18.0.1", "https://192.0.2.1",
        "https://198.51.100.1", "https://203.0.113.9", "https://[2001:db8::1]", "https://[2002:a00:1::1]",
        "https://[3fff::1]", "https://[2001::1]", "https://[fe80::1]", "https://[fd00::1]", "https://[::ffff:10.0.0.1]",
        "https://[::ffff:192.0.2.1]", "https://[64:ff9b::a00:1]"}) {
    const std::string flag = std::string("--astra_base_url=") + url;
    EXPECT_THAT(Problem(LoadMore({flag})), StartsWith("--astra_base_url: is not a public address (")) << url;
    EXPECT_EQ(Problem(LoadMore({flag, "--allow_private_upstream"})), "") << url;
  }
  // No flag makes a connection to these.
  for (const char* url :
       {"https://0.0.0.0", "https://0.1.2.3", "https://224.0.0.1", "https://240.0.0.1", "https://255.255.255.255",
        "https://[::]", "https://[ff02::1]", "https://[::ffff:0.0.0.0]", "https://[64:ff9b::e000:1]"}) {
    for (const char* more : {"--kyc_delegation", "--allow_private_upstream"}) {
      EXPECT_THAT(Problem(LoadMore({std::string("--astra_base_url=") + url, more})),
                  StartsWith("--astra_base_url: is an address that nobody can be reached at ("))
          << url;
    }
  }
  for (const char* url :
       {"https://localhost:1", "https://127.0.0.1:1", "https://127.8.8.8", "https://[::1]:8443", "https://8.8.8.8",
        "https://172.32.0.1", "https://100.128.0.1", "https://[2606:4700::1]", "https://api.example.com",
        "HTTPS://API.example.com:443", "https://10.example.com", "https://astra"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--astra_base_url=") + url})), "") << url;
  }
  EXPECT_TRUE((net::Origin{"localhost", 1}).loopback());
  EXPECT_TRUE((net::Origin{"127.8.8.8", 1}).loopback());
  EXPECT_FALSE((net::Origin{"localhost.example.com", 1}).loopback());
  EXPECT_FALSE((net::Origin{"8.8.8.8", 1}).loopback());
  EXPECT_EQ((net::Origin{"::1", 8443}).Text(), "https://[::1]:8443");
}

TEST_F(ConfigTest, TheEnvironmentAndTheHostGoTogether) {
  const char* const kProduction = "https://api.astra.finance";
  const char* const kSandbox = "https://api-sandbox.astra.finance";
  const char* const kOther = "https://astra.example.com";
  const char* const kHere = "https://127.0.0.1:8443";
  struct Case {
    const char* environment;
    const char* base;  // null: the default
    const char* pages;
    const char* refused;  // how the line begins; empty: it is right
  };
  const Case cases[] = {
      {"", nullptr, "", ""},
      {"", kSandbox, "", ""},
      {"", kOther, "", ""},
      {"", kHere, "", ""},
      {"", kProduction, "", "--astra_base_url: is Astra's production; --environment=production"},
      {"", "https://API.ASTRA.finance:443", "", "--astra_base_url: is Astra's production"},
      {"", "https://api.astra.finance:8443", "", "--astra_base_url: is Astra's production"},
      {"", "https://secure.api.astra.finance", "", "--astra_base_url: is Astra's production"},
      {"sandbox", nullptr, "", ""},
      {"sandbox", kSandbox, "", ""},
      {"sandbox", kOther, "", ""},
      {"sandbox", kHere, "", ""},
      {"sandbox", kProduction, "", "--environment: sandbox contradicts --astra_base_url"},
      {"production", kProduction, "", ""},
      {"production", "https://Api.Astra.Finance", "", ""},
      {"production", nullptr, "", "--environment: production contradicts --astra_base_url"},
      {"production", kSandbox, "", "--environment: production contradicts --astra_base_url"},
      {"production", kOther, "", "--environment: production goes with Astra's own host alone"},
      {"production", kHere, "", "--environment: production goes with Astra's own host alone"},
      {"production", "https://api.astra.finance.example.com", "", "--environment: production goes with Astra's own"},
      {"production", "https://sandbox.astra.finance", "", "--environment: production goes with Astra's own"},
      {"live", nullptr, "", "--environment: must be sandbox or production"},
      {"Production", nullptr, "", "--environment: must be sandbox or production"},
      {"", kSandbox, "https://app.astra.finance", "--astra_app_url: is of Astra's production"},
      {"", kOther, "https://app.astra.finance", "--astra_app_url: is of Astra's production"},
      {"sandbox", kHere, "https://app.astra.finance", "--astra_app_url: is of Astra's production"},
      {"production", kProduction, "https://app-sandbox.astra.finance", "--astra_app_url: is of Astra's sandbox"},
      {"production", kProduction, "https://app.astra.finance", ""},
      {"production", kProduction, "https://pages.example.com", ""},
      {"", kHere, "https://app-sandbox.astra.finance", ""},
  };
  for (const Case& c : cases) {
    std::vector<std::string> more = {std::string("--environment=") + c.environment,
                                     std::string("--astra_app_url=") + c.pages};
    if (c.base != nullptr) more.push_back(std::string("--astra_base_url=") + c.base);
    const std::string problem = Problem(LoadMore(more));
    const std::string what = absl::StrCat(c.environment, " with ", c.base == nullptr ? "the default" : c.base);
    EXPECT_EQ(problem.substr(0, std::string_view(c.refused).size()), c.refused) << what;
    EXPECT_EQ(problem.empty(), std::string_view(c.refused).empty()) << what << ": " << problem;
  }
  EXPECT_EQ(
      Problem(LoadMore({"--environment=production", "--astra_base_url=https://api.astra.finance", "--ledger=memory:"})),
      "--ledger: memory: forgets every request, which --environment=production does not allow");
}

TEST_F(ConfigTest, WhereAstrasPagesAre) {
  const std::pair<const char*, const char*> pages[] = {
      {"https://api.astra.finance", "https://app.astra.finance"},
      {"https://API-Sandbox.astra.finance:443", "https://app-sandbox.astra.finance"},
      {"https://localhost:8443", "https://app-sandbox.astra.finance"},
      {"https://[::1]:8443", "https://app-sandbox.astra.finance"}};
  for (const auto& [base, app] : pages) {
    const bool production = std::string_view(base) == "https://api.astra.finance";
    const auto loaded = LoadMore({std::string("--astra_base_url=") + base, "--oauth_redirect_uri=https://a.example",
                                  production ? "--environment=production" : "--environment="});
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->settings.app_url()->Text(), app);
  }
  const char* elsewhere = "--astra_base_url=https://api.astra.example";
  EXPECT_EQ(Problem(LoadMore({elsewhere})), "") << "nobody is sent anywhere";
  EXPECT_EQ(Problem(LoadMore({elsewhere, "--oauth_redirect_uri=https://a.example"})),
            "--astra_app_url: --oauth_redirect_uri needs it, because --astra_base_url is none of Astra's");
  EXPECT_EQ(
      Problem(LoadMore({elsewhere, "--oauth_redirect_uri=https://a.example", "--astra_app_url=https://p.example"})),
      "");
  EXPECT_THAT(Problem(LoadMore({"--astra_app_url=http://p.example"})), StartsWith("--astra_app_url: must be https://"));
  EXPECT_THAT(Problem(LoadMore({"--astra_app_url=https://p.example/"})),
              StartsWith("--astra_app_url: must be https://"));
}

// net_redirect_uri_test has every form.
TEST_F(ConfigTest, RedirectUris) {
  for (const char* wrong : {"http://CANARY.example/", "https://a.example#CANARY", ",", "https://a.example,",
                            "https://a.example,,https://b.example", "https://a.example, https://b.example"}) {
    EXPECT_THAT(Problem(LoadMore({std::string("--oauth_redirect_uri=") + wrong})),
                StartsWith("--oauth_redirect_uri: must be https URIs"))
        << wrong;
  }
  EXPECT_EQ(Problem(LoadMore({"--oauth_redirect_uri="})), "");
}

// The flag has one reader, astra::ParseLimitRule, whose own test has every refusal.
TEST_F(ConfigTest, LimitErrorRules) {
  const auto problem = [&](const std::string& rule) { return Problem(LoadMore({"--astra_limit_error=" + rule})); };
  EXPECT_THAT(problem("400"), StartsWith("--astra_limit_error: expected STATUS:SUBSTRING"));
  for (const char* rule : {"399:x", "500:x", "200:x", "0:x", "4000:x", ":x", "abc:x", "-400:x", " 400:x"}) {
    EXPECT_EQ(problem(rule), "--astra_limit_error: the status before the colon must be a number from 400 to 499")
        << rule;
  }
  for (const char* rule : {"400:", "400: ", "400:    "}) {  // every error with a blank in it would be the limit
    EXPECT_THAT(problem(rule), StartsWith("--astra_limit_error: the substring after the colon is blank")) << rule;
  }
  EXPECT_THAT(problem("400:a\nb"), StartsWith("--astra_limit_error: the substr"));
  EXPECT_THAT(problem("400:" + std::string(257, 'x')), StartsWith("--astra_limit_error: the substring"));
  EXPECT_EQ(problem("400:attempts: 3 of 3"), "");
  EXPECT_EQ(problem("499:x"), "");
  EXPECT_EQ(problem(""), "");
}

TEST_F(ConfigTest, Ranges) {
  const std::pair<const char*, std::vector<const char*>> wrong[] = {
      {"connect_timeout", {"0", "-1s", "inf", "2m", "1us"}},
      {"upstream_timeout", {"0s", "-1s", "inf", "11m"}},
      {"default_deadline", {"0s", "-1s", "inf", "2h"}},
      {"min_deadline", {"0s", "-1s", "inf", "2m"}},
      {"drain_timeout", {"0s", "-1s", "-inf", "61m"}},
      {"upstream_connections", {"0", "-1", "10001"}},
      {"upstream_min_limit", {"0", "-1", "1000001"}},
      {"queue_limit", {"-1", "1000001"}},
      {"max_connections", {"-1", "1000001"}},
      {"max_connection_age", {"0", "-1s", "9s", "25h", "inf"}},
      {"max_connections_per_address", {"-1", "1000001"}},
      {"memory_watermark", {"-1", "1048577"}},
      {"max_in_flight", {"0", "-1", "1000001"}},
      {"max_waiters_per_request", {"-1", "1000001"}},
      {"max_waiters_per_caller", {"-1", "1000001"}},
      {"webhook_connections", {"0", "100001"}},
      {"webhook_connections_per_address", {"-1", "100001"}},
      {"webhook_queue", {"0", "1000001"}},
      {"astra_read_rate", {"-1", "1000001"}},
      {"email_attempt_limit", {"-1", "1001"}},
      {"shards", {"-1", "257"}},
  };
  for (const auto& [flag, values] : wrong) {
    for (const char* value : values) {
      EXPECT_THAT(Problem(LoadMore({"--" + std::string(flag) + '=' + value})),
                  StartsWith("--" + std::string(flag) + ": must be from "))
          << value;
    }
  }
  for (const char* right :
       {"--connect_timeout=1ms", "--connect_timeout=30s", "--upstream_timeout=10m", "--min_deadline=34s",
        "--upstream_connections=1", "--max_in_flight=1", "--email_attempt_limit=0", "--shards=256"}) {
    EXPECT_EQ(Problem(LoadMore({right})), "") << right;
  }
  for (const char* wrong_window : {"-1s", "1us", "61m", "inf"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--late_answer_window=") + wrong_window})),
              "--late_answer_window: must be 0, or from 1ms to 1h");
  }
  for (const char* right_window : {"0", "1ms", "1h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--late_answer_window=") + right_window})), "");
  }
  for (const char* value : {"-1h", "59s", "8785h", "inf"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--follow_up=") + value})), "--follow_up: must be 0, or from 1m to 8784h")
        << value;
  }
  for (const char* right : {"0", "1m", "8784h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--follow_up=") + right})), "") << right;
  }
  EXPECT_THAT(Problem(LoadMore({"--connect_timeout=31s"})), StartsWith("--connect_timeout: must not be longer than"));
  EXPECT_EQ(Problem(LoadMore({"--upstream_connections=1", "--upstream_min_limit=100"})), "");
  EXPECT_EQ(Problem(LoadMore({"--upstream_connections=1", "--upstream_min_limit=101"})),
            "--upstream_min_limit: must not be more than a hundred for each of --upstream_connections");
  // A default is nobody's wish.
  EXPECT_EQ(LoadMore({"--upstream_timeout=2s"})->settings.connect_timeout, absl::Seconds(2));
  EXPECT_EQ(LoadMore({"--upstream_timeout=1m"})->settings.connect_timeout, absl::Seconds(3));
  EXPECT_EQ(LoadMore({"--default_deadline=150ms"})->settings.min_deadline, absl::Milliseconds(75));
  EXPECT_THAT(Problem(LoadMore({"--upstream_timeout=2s", "--connect_timeout=3s"})),
              StartsWith("--connect_timeout: must"));
  EXPECT_THAT(Problem(LoadMore({"--min_deadline=35s"})), StartsWith("--min_deadline: must be shorter than"));
}

TEST_F(ConfigTest, LedgerLocations) {
  for (const char* leaks : {"postgresql://u:CANARY@example.com/db", "postgresql://u@example.com/db?password=CANARY"}) {
    const std::string problem = Problem(LoadMore({std::string("--ledger=") + leaks}));
    EXPECT_THAT(problem, StartsWith("--ledger: must hold no password")) << leaks;
    EXPECT_THAT(problem, Not(HasSubstr("CANARY")));
  }
  const std::string socket = "--ledger=postgresql:///db?host=/run/postgresql";
  EXPECT_EQ(Problem(LoadMore({socket})), "");
  EXPECT_EQ(Problem(LoadMore({"--ledger=postgresql://u@a,b/db?sslmode=verify-full"})), "");
  for (const char* open : {"postgresql://u@a/db", "postgresql://u@a/db?sslmode=require",
                           "postgresql://u@/db?host=/run,a", "postgresql://u@/db?host=/run&hostaddr=10.0.0.1"}) {
    EXPECT_THAT(Problem(LoadMore({std::string("--ledger=") + open})), StartsWith("--ledger: needs sslmode=verify-full"))
        << open;
  }
  EXPECT_EQ(Problem(LoadMore({"--ledger=postgresql:///?host=/run"})), "--ledger: names no database");
  EXPECT_THAT(Problem(LoadMore({"--ledger=postgresql:///db?service=a"})), StartsWith("--ledger: must name its hosts"));
  EXPECT_THAT(Problem(LoadMore({"--ledger=postgresql://a:b:c:d/x?y"})),
              StartsWith("--ledger: must be a URL that libpq"));
  for (const char* lease : {"1999ms", "61s"}) {
    EXPECT_EQ(Problem(LoadMore({socket, std::string("--ledger_lease=") + lease})),
              "--ledger_lease: must be from 2s to 60s");
  }
  EXPECT_THAT(Problem(LoadMore({socket, "--ledger_lease=8s"})), StartsWith("--ledger_fence: must be at least 3s more"));
  EXPECT_EQ(Problem(LoadMore({socket, "--ledger_lease=8s", "--ledger_fence=11s"})), "");
  EXPECT_EQ(Problem(LoadMore({"--ledger=memory:", "--ledger_single_node"})),
            "--ledger_single_node: needs --ledger=postgresql://...");
  EXPECT_EQ(Problem(LoadMore({"--ledger=memory:"})), "");
  EXPECT_EQ(Problem(LoadMore({"--ledger=sqlite:/var/lib/x/ledger.db"})), "");
  for (const char* path : {"sqlite:", "sqlite:data/"}) {
    EXPECT_THAT(Problem(LoadMore({std::string("--ledger=") + path})), StartsWith("--ledger: sqlite: needs the path"));
  }
  for (const char* path : {"sqlite::memory:", "sqlite:file:x?mode=memory"}) {
    EXPECT_THAT(Problem(LoadMore({std::string("--ledger=") + path})), StartsWith("--ledger: sqlite: needs a plain"));
  }
  EXPECT_EQ(Problem(LoadMore({"--ledger=sqlite:a\nb"})), "--ledger: the path holds control characters");
  EXPECT_EQ(Problem(LoadMore({"--ledger=sqlite:" + directory_.string()})), "--ledger: the path is not a regular file");
}

TEST_F(ConfigTest, WhetherALedgerMustBeThere) {
  const std::string path = (directory_ / "ledger.db").string();
  const std::string ledger = "--ledger=sqlite:" + path;
  EXPECT_EQ(Problem(LoadMore({ledger, "--ledger_must_exist"})), "--ledger_must_exist: there is no ledger at the path");
  EXPECT_EQ(Problem(LoadMore({"--ledger=memory:", "--ledger_must_exist"})),
            "--ledger_must_exist: needs --ledger=sqlite:PATH");
  std::ofstream(path).flush();
  EXPECT_EQ(Problem(LoadMore({ledger})), "--ledger: the file holds 0 bytes, so what it held is lost");
  std::ofstream(path) << "x";
  EXPECT_EQ(Problem(LoadMore({ledger, "--ledger_must_exist"})), "");
}

TEST_F(ConfigTest, LedgerRestored) {
  const char* ledger = "--ledger=sqlite:data/ledger.db";
  EXPECT_EQ(Problem(LoadMore({ledger, "--ledger_restored=2026-01-31T09:30:00+01:00"})), "");
  EXPECT_EQ(Problem(LoadMore({ledger, "--ledger_restored="})), "");
  for (const char* wrong : {"yes", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31T09:30:00", "1769851800"}) {
    EXPECT_THAT(Problem(LoadMore({ledger, std::string("--ledger_restored=") + wrong})),
                StartsWith("--ledger_restored: must be a time as in RFC 3339"))
        << wrong;
  }
  for (const char* wrong : {"infinite-future", "infinite-past", "9999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"}) {
    EXPECT_THAT(Problem(LoadMore({ledger, std::string("--ledger_restored=") + wrong})),
                StartsWith("--ledger_restored: must be"))
        << wrong;
  }
  EXPECT_EQ(Problem(LoadMore({"--ledger=memory:", "--ledger_restored=2026-01-31T09:30:00Z"})),
            "--ledger_restored: needs --ledger=sqlite:PATH");
}

TEST_F(ConfigTest, Retention) {
  for (const char* right : {"0", "0s", "9504h", "100000h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--retention=") + right, "--ledger=sqlite:data/ledger.db"})), "") << right;
  }
  for (const char* wrong : {"9503h59m59s", "1s", "-1s", "-9504h", "inf", "876601h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--retention=") + wrong, "--ledger=sqlite:data/ledger.db"})),
              "--retention: must be 0, or from 9504h (13 months) to 876600h")
        << wrong;
  }
  EXPECT_EQ(Problem(LoadMore({"--retention=9504h", "--ledger=memory:"})),
            "--retention: needs --ledger=sqlite:PATH or postgresql://...");
  EXPECT_EQ(Problem(LoadMore({"--retention=0", "--ledger=memory:"})), "");
  for (const char* right : {"24h", "1d", "876600h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--released_retention=") + right})), "") << right;
  }
  for (const char* wrong : {"0", "23h59m", "-24h", "inf", "876601h"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--released_retention=") + wrong})),
              "--released_retention: must be from 24h to 876600h")
        << wrong;
  }
}

TEST_F(ConfigTest, PolicyFile) {
  const std::string file = File("policy", kPolicy);
  const absl::StatusOr<Loaded> loaded = LoadMore({"--policy_file=" + file});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_NE(loaded->policy, nullptr);
  EXPECT_EQ(loaded->policy->Snapshot().policy->rules().size(), 2u);
  EXPECT_EQ(LoadMore({})->policy, nullptr);
  EXPECT_EQ(Problem(LoadMore({"--policy_file=" + File("broken", R"({"version": 1, "callers": [{"CANARY-1": 2}]})")})),
            "--policy_file: callers[0].name: required: a caller's name");
  EXPECT_EQ(Problem(LoadMore({"--check_config", "--policy_file=" + File("broken", "{}")})),
            "--policy_file: version: must be 1, the only one that this program knows");
  EXPECT_EQ(Problem(LoadMore({}, {"USERINTENT_POLICY_FILE=/nonexistent/CANARY"})),
            "--policy_file: cannot open the file: No such file or directory (set by USERINTENT_POLICY_FILE)");
  EXPECT_EQ(Problem(LoadMore({"--policy_file=" + File("open", kPolicy, 0666)})),
            "--policy_file: others may write the file; take that right away (chmod o-w)");
  // Where GetAuthorizationUrl sends persons must be known.
  EXPECT_EQ(Problem(LoadMore({"--policy_file=" + file, "--astra_base_url=https://astra.test.example"})),
            "--astra_app_url: a rule with redirect_uris in --policy_file needs it, because --astra_base_url is none of "
            "Astra's");
}

TEST_F(ConfigTest, MetricsListen) {
  for (const char* const collector : {"", "http://localhost:4318", "http://127.0.0.1:4318", "https://a.example:4318"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--otlp_endpoint=") + collector})), "") << collector;
  }
  EXPECT_THAT(Problem(LoadMore({"--otlp_endpoint=http://collector:4318"})),
              StartsWith("--otlp_endpoint: off loopback needs https"));
  EXPECT_EQ(Problem(LoadMore({"--otlp_endpoint=http://collector:4318", "--allow_plaintext"})), "");
  EXPECT_EQ(Problem(LoadMore({"--metrics_listen="})), "");
  EXPECT_EQ(Problem(LoadMore({"--metrics_listen=0.0.0.0:9464"})), "");
  EXPECT_THAT(Problem(LoadMore({"--metrics_listen=127.0.0.1:50051"})), StartsWith("--metrics_listen: is the same"));
  EXPECT_EQ(Problem(LoadMore({"--metrics_listen=127.0.0.1:0", "--listen=127.0.0.1:0"})), "");
}

TEST_F(ConfigTest, EveryWrongSettingIsNamedOnce) {
  const auto lines = [&](const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {}) {
    return std::string(Load(arguments, environment).status().message());
  };
  EXPECT_EQ(
      lines({"--shards=x", "--lisen=1", "--listen=0.0.0.0:1", "--connect_timeout=5m", "--upstream_timeout=11m",
             "--ledger_key_file=/nonexistent", "--astra_base_url=https://192.0.2.1", "--noshards", "--log_level"},
            {"USERINTENT_MAX_IN_FLIGHT=0", "USERINTENT_SHARDZ=1"}),
      "USERINTENT_SHARDZ: unknown variable of the environment; no flag has this name\n"
      "--lisen: there is no such flag; --help lists all\n"
      "--noshards: there is no such flag; --help lists all\n"
      "--log_level: needs a value\n"
      "--shards: must be a whole number\n"
      "--listen: off loopback needs the three --tls_ flags, or --allow_plaintext behind a mesh that adds TLS\n"
      "--astra_base_url: is not a public address (Documentation (TEST-NET-1)); --allow_private_upstream allows it\n"
      "--astra_client_id_file: required\n"
      "--astra_client_secret_file: required\n"
      "--connect_timeout: must be from 1ms to 1m\n"
      "--upstream_timeout: must be from 1ms to 10m\n"
      "--max_in_flight: must be from 1 to 1000000 (set by USERINTENT_MAX_IN_FLIGHT)\n"
      "--ledger_key_file: cannot open the file: No such file or directory");
}

TEST_F(ConfigTest, WhatFollowsFromOneProblemIsNoOther) {
  EXPECT_EQ(Problem(LoadMore({"--upstream_timeout=x", "--connect_timeout=40s"})),
            Problem(LoadMore({"--upstream_timeout=x"})));
  EXPECT_EQ(Problem(LoadMore({"--default_deadline=0s"})), "--default_deadline: must be from 1ms to 1h");
  EXPECT_THAT(Problem(LoadMore({"--no_such_flag", "7"})), StartsWith("--no_such_flag: "));
  // What cannot be read says nothing about the rest.
  EXPECT_THAT(Problem(Load({"serve", "--lisen=1"})), HasSubstr("is no flag"));
}

TEST_F(ConfigTest, DurationsKnowDays) {
  EXPECT_EQ(LoadMore({"--retention=400d"})->settings.retention, absl::Hours(9600));
  EXPECT_EQ(LoadMore({}, {"USERINTENT_RETENTION=396d12h"})->settings.retention, absl::Hours(9516));
  EXPECT_THAT(Problem(LoadMore({"--retention=395d"})), StartsWith("--retention: must be 0, or from 9504h"));
  EXPECT_THAT(Problem(LoadMore({"--connect_timeout=1d"})), StartsWith("--connect_timeout: must be from 1ms to 1m"));
}

TEST_F(ConfigTest, FilesThatOthersMayWriteAreRefused) {
  for (const mode_t mode : {0602u, 0620u, 0640u | 0020u, 0660u}) {
    EXPECT_THAT(PROBLEM_OF(Valid(), chmod(c.ledger_key_file.c_str(), mode)),
                StartsWith("--ledger_key_file: others than its owner may write"))
        << mode;
    EXPECT_THAT(PROBLEM_OF(ValidTls(), chmod(c.tls_key_file.c_str(), mode)),
                StartsWith("--tls_key_file: others than its owner may write"))
        << mode;
  }
  // Whom to trust is no secret, but not for everybody to say.
  EXPECT_THAT(PROBLEM_OF(ValidTls(), chmod(c.tls_client_ca_file.c_str(), 0646)),
              StartsWith("--tls_client_ca_file: others may write"));
  EXPECT_THAT(PROBLEM_OF(Valid(), c.astra_ca_file = File("ca", CertificateText(NewKey().get()), 0666)),
              StartsWith("--astra_ca_file: others may write"));
}

TEST_F(ConfigTest, CheckConfigLooksAtTheLedgersPlace) {
  const auto check = [&](const std::string& path) {
    return Problem(LoadMore({"--check_config", "--ledger=sqlite:" + path}));
  };
  EXPECT_EQ(check((directory_ / "a" / "b" / "ledger.db").string()), "");
  EXPECT_FALSE(std::filesystem::exists(directory_ / "a"));
  File("file", "x");
  EXPECT_EQ(check((directory_ / "file" / "ledger.db").string()), "--ledger: its directory is not a directory");
  EXPECT_EQ(check(File("notes", std::string(200, 'x'))),
            "--ledger: is not a ledger, or its head is damaged; it was left as it is");
  std::filesystem::create_directory(directory_ / "open");
  chmod((directory_ / "open").c_str(), 0777);
  EXPECT_THAT(check((directory_ / "open" / "ledger.db").string()), StartsWith("--ledger: others may write its"));
  // At a start the ledger's own opening says the same.
  EXPECT_EQ(Problem(LoadMore({"--ledger=sqlite:" + (directory_ / "open" / "ledger.db").string()})), "");
}

TEST_F(ConfigTest, CheckingWritesNothing) {
  Settings settings = Valid();
  settings.ledger.path = (directory_ / "new" / "ledger.db").string();
  EXPECT_EQ(Problem(config::Load(settings)), "");
  EXPECT_FALSE(std::filesystem::exists(directory_ / "new"));
}

// --- what is read

std::string Bytes(const Secret& secret) { return std::string(secret.Reveal()); }

// A file that changes after Load does not change what was loaded: nothing is read twice.
TEST_F(ConfigTest, WhatWasReadIsWhatIsUsed) {
  Settings settings = ValidTls();
  settings.astra_ca_file = File("astra.crt", CertificateText(NewKey().get()), 0644);
  settings.ledger_previous_key_file = File("old", std::string(40, 'o')) + ',' + File("older", std::string(40, 'p'));
  const auto text = [](const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  };
  std::string chain = text(settings.tls_cert_file), key = text(settings.tls_key_file);
  const std::string callers = text(settings.tls_client_ca_file), upstream = text(settings.astra_ca_file);
  const absl::StatusOr<Loaded> loaded = config::Load(settings);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  std::filesystem::remove_all(directory_);

  EXPECT_THAT(Warnings(*loaded), IsEmpty());
  ASSERT_TRUE(static_cast<bool>(loaded->tls));
  EXPECT_EQ(loaded->tls.certificate->Snapshot()->certificates.pem, chain);
  key.pop_back();  // the newline at the end of a secret is not part of it
  EXPECT_EQ(Bytes(loaded->tls.certificate->Snapshot()->key_pem), key);
  EXPECT_EQ(loaded->tls.authorities->Snapshot()->certificates.pem, callers);
  ASSERT_NE(loaded->authorities, nullptr);
  EXPECT_EQ(loaded->authorities->Snapshot()->pem, upstream);
  ASSERT_NE(loaded->credentials, nullptr);
  EXPECT_EQ(Bytes(loaded->credentials->Snapshot()->header_value), "Basic Y2xpZW50LWlkOkNBTkFSWTpzZWNyZXQ=");
  EXPECT_EQ(Bytes(loaded->ledger_keys.current), "0123456789abcdefghijklmnopqrstuv");
  ASSERT_EQ(loaded->ledger_keys.previous.size(), 2u);
  EXPECT_EQ(Bytes(loaded->ledger_keys.previous[0]), std::string(40, 'o'));
  EXPECT_EQ(Bytes(loaded->ledger_keys.previous[1]), std::string(40, 'p'));
}

TEST_F(ConfigTest, WithoutTlsAndAuthoritiesThereIsNone) {
  const absl::StatusOr<Loaded> loaded = config::Load(Valid());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_FALSE(static_cast<bool>(loaded->tls));
  EXPECT_EQ(loaded->authorities, nullptr);
  EXPECT_TRUE(loaded->ledger_keys.previous.empty());
}

// A probe may run without the rights to the secrets, so it gets settings only; the files of TLS it reads by LoadTls.
TEST_F(ConfigTest, AProbeReadsNoFile) {
  const Settings files = ValidTls();
  const absl::StatusOr<Loaded> loaded =
      Load({"--healthcheck", "--tls_cert_file=" + files.tls_cert_file, "--tls_key_file=" + files.tls_key_file,
            "--tls_client_ca_file=" + files.tls_client_ca_file, "--ledger_key_file=/nowhere"});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_FALSE(static_cast<bool>(loaded->tls));
  EXPECT_EQ(loaded->credentials, nullptr);
  EXPECT_TRUE(loaded->settings.tls());
  const auto tls = LoadTls(loaded->settings);
  ASSERT_TRUE(tls.ok()) << tls.status();
  ASSERT_TRUE(static_cast<bool>(*tls));
  EXPECT_EQ(tls->certificate->Snapshot()->certificates.parsed.size(), 1u);
  EXPECT_FALSE(static_cast<bool>(*LoadTls(Settings())));
  std::filesystem::remove(files.tls_key_file);
  EXPECT_THAT(Problem(LoadTls(loaded->settings).status()), StartsWith("--tls_key_file: cannot open"));
}

TEST_F(ConfigTest, BothCredentialsAreNamedWhereBothAreWrong) {
  Settings settings = Valid();
  settings.astra_client_id_file = File("id", "CANARY:x");
  settings.astra_client_secret_file = File("secret", "");
  EXPECT_EQ(config::Load(settings).status().message(),
            "--astra_client_id_file: a client id must not contain a colon\n"
            "--astra_client_secret_file: the file is empty");
}

// --- what is warned about

TEST_F(ConfigTest, WarningsNameTheirFlag) {
  const auto warnings = [&](Settings settings, const std::function<void(Settings&)>& change) {
    change(settings);
    const absl::StatusOr<Loaded> loaded = config::Load(settings);
    EXPECT_EQ(Problem(loaded), "");
    return loaded.ok() ? Warnings(*loaded) : std::vector<std::string>();
  };
  EXPECT_THAT(warnings(Valid(), [](Settings&) {}), IsEmpty());
  EXPECT_THAT(warnings(ValidTls(), [](Settings&) {}), IsEmpty());
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.listen.host = "0.0.0.0", c.allow_plaintext = true; }),
              ElementsAre(StartsWith("--allow_plaintext: serves personal data without TLS"),
                          StartsWith("--policy_file: not given: whoever reaches the port")));
  EXPECT_THAT(warnings(ValidTls(), [](Settings& c) { c.policy_file.clear(); }),
              ElementsAre(StartsWith("--policy_file: not given: every certificate")));
  const std::string nobody_local = File("p", R"({"version": 1, "callers": [{"name": "a", "methods": []}]})");
  EXPECT_THAT(warnings(Valid(), [&](Settings& c) { c.policy_file = nobody_local; }),
              ElementsAre(StartsWith("--policy_file: without TLS the caller is \"local\"")));
  const std::string tried_out =
      File("q", R"({"version": 1, "callers": [{"name": "local", "methods": [], "enforce": false}]})");
  EXPECT_THAT(warnings(Valid(), [&](Settings& c) { c.policy_file = tried_out; }),
              ElementsAre(StartsWith("--policy_file: a rule says enforce: false")));
  EXPECT_THAT(warnings(ValidTls(), [](Settings& c) { c.oauth_redirect_uri.all = {"https://test.example"}; }),
              ElementsAre(StartsWith("--oauth_redirect_uri: has no effect beside --policy_file")));
  EXPECT_THAT(warnings(ValidTls(), [](Settings& c) { c.reflection = true; }),
              ElementsAre(StartsWith("--reflection: ")));
  EXPECT_THAT(warnings(Valid(),
                       [](Settings& c) {
                         c.ledger = {Kind::kMemory, ""};
                       }),
              ElementsAre(StartsWith("--ledger: memory: forgets")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.allow_non_public_ip = true; }),
              ElementsAre(StartsWith("--allow_non_public_ip: ")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.allow_private_upstream = true; }),
              ElementsAre(StartsWith("--allow_private_upstream: ")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.email_attempt_limit = 0; }),
              ElementsAre(StartsWith("--email_attempt_limit: 0 leaves")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.email_attempt_limit = 4; }),
              ElementsAre(StartsWith("--email_attempt_limit: is larger")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.metrics_listen.host = "::"; }),
              ElementsAre(StartsWith("--metrics_listen: shows")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.default_deadline = absl::Seconds(29); }),
              ElementsAre(StartsWith("--upstream_timeout: is longer than --default_deadline;")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.default_deadline = absl::Seconds(30); }), IsEmpty());
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.drain_timeout = absl::Seconds(29); }),
              ElementsAre(StartsWith("--drain_timeout: is shorter than --upstream_timeout;")));
  EXPECT_THAT(warnings(Valid(), [](Settings& c) { c.lame_duck = absl::Seconds(6); }),
              ElementsAre(StartsWith("--drain_timeout: is shorter than --lame_duck and --upstream_timeout together;")));
  for (const auto& [from, to, text] :
       {std::tuple(-7200, -3600, "has expired"), std::tuple(3600, 7200, "not valid yet")}) {
    Settings settings = ValidTls();
    const KeyPtr key = NewKey();
    settings.tls_cert_file = File("tls.crt", CertificateText(key.get(), from, to));
    settings.tls_key_file = File("tls.key", KeyText(key.get()));
    EXPECT_THAT(warnings(settings, [](Settings&) {}), ElementsAre(HasSubstr(text)));
  }
}

// The lame duck is the first part of the drain: what Astra is asked at its end needs what is left.
TEST_F(ConfigTest, LameDuckFollowsListenAndFitsIntoTheDrainUnlessItIsSet) {
  Settings settings;
  EXPECT_EQ(settings.lame_duck_time(), absl::ZeroDuration());
  settings.listen.host = "0.0.0.0";
  EXPECT_EQ(settings.lame_duck_time(), absl::Seconds(5));
  settings.drain_timeout = absl::Seconds(4);
  EXPECT_EQ(settings.lame_duck_time(), absl::Seconds(2));
  settings.lame_duck = absl::ZeroDuration();
  EXPECT_EQ(settings.lame_duck_time(), absl::ZeroDuration());
  settings.listen.host = "127.0.0.1";
  settings.lame_duck = absl::Seconds(3);
  EXPECT_EQ(settings.lame_duck_time(), absl::Seconds(3));

  for (const char* wrong : {"-1s", "1us", "61m", "inf"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--lame_duck=") + wrong})), "--lame_duck: must be 0, or from 1ms to 1h");
  }
  for (const char* right : {"", "0", "1ms", "34s"}) {
    EXPECT_EQ(Problem(LoadMore({std::string("--lame_duck=") + right})), "") << right;
  }
  const std::string too_long = "--lame_duck: must be shorter than --drain_timeout, which it is the first part of";
  EXPECT_EQ(Problem(LoadMore({"--lame_duck=35s"})), too_long);
  EXPECT_EQ(Problem(LoadMore({"--lame_duck=2s", "--drain_timeout=1s"})), too_long);
  EXPECT_EQ(Problem(LoadMore({"--drain_timeout=1ms"})), "");
}

TEST_F(ConfigTest, ReflectionFollowsListenUnlessItIsSet) {
  Settings settings;
  EXPECT_TRUE(settings.reflection_on());
  settings.listen.host = "0.0.0.0";
  EXPECT_FALSE(settings.reflection_on());
  settings.reflection = true;
  EXPECT_TRUE(settings.reflection_on());
}

}  // namespace
}  // namespace userintent::config
