#include "server/observe/http_endpoint.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace userintent::observe {
namespace {

constexpr std::string_view kText = "text/plain; charset=utf-8";
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kHtml = "text/html; charset=utf-8";
constexpr std::string_view kPrometheusText = "text/plain; version=0.0.4; charset=utf-8";

// A page gets its style from itself and nothing from anywhere, has no script, sends no form, and stands in no frame.
constexpr std::string_view kNothingElse =
    "\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'\r\nReferrer-Policy: no-referrer";

struct Reply {
  int status;
  std::string_view reason;
  std::string_view type;
  std::string body;
};

std::string Serialize(const Reply& reply) {
  std::string text = "HTTP/1.1 ";
  text += std::to_string(reply.status);
  text += ' ';
  text += reply.reason;
  text += "\r\nContent-Type: ";
  text += reply.type;
  text += "\r\nContent-Length: ";
  text += std::to_string(reply.body.size());
  if (reply.status == 405) text += "\r\nAllow: GET";
  if (reply.type == kHtml) text += kNothingElse;
  text += "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n";
  text += reply.body;
  return text;
}

Reply Readiness(const std::vector<std::string>& reasons) {
  const nlohmann::json body = {{"ready", reasons.empty()}, {"reasons", reasons}};
  const std::string text = body.dump() + '\n';
  return reasons.empty() ? Reply{200, "OK", kJson, text} : Reply{503, "Service Unavailable", kJson, text};
}

// Once a process; the library counts its users.
bool InitLibrary() {
  static const unsigned features = mg_init_library(0);
  (void)features;  // 0 only says that no optional feature was asked for
  return true;
}

// The library would write its own lines, with bytes of the request in them.
int DropLogMessage(const mg_connection*, const char*) { return 1; }

int BeginRequest(mg_connection* connection) {
  auto* endpoint = static_cast<HttpEndpoint*>(mg_get_request_info(connection)->user_data);
  return endpoint->Handle(connection);
}

// Answers that the library makes itself, to requests that it cannot read: the status and nothing else. Its own page
// would echo parts of the request.
int BareError(mg_connection* connection, int status, const char*) {
  const std::string text = Serialize({status, "Refused", kText, "refused\n"});
  mg_write(connection, text.data(), text.size());
  return 0;
}

// The address behind the name that is allowed; everything else is an address already.
std::string ListenHost(const std::string& host) { return host == "localhost" ? "127.0.0.1" : host; }

// Connects without waiting for it, and hangs up. To the address "any" this reaches the machine itself.
void Knock(const std::string& host, uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  const bool is_v4 = inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1) return;
  const int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  if (is_v4) {
    (void)connect(fd, reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  } else {
    (void)connect(fd, reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
  }
  close(fd);
}

}  // namespace

HttpEndpoint::HttpEndpoint(Options options) : options_(std::move(options)) {}

HttpEndpoint::~HttpEndpoint() {
  if (context_ == nullptr) return;
  // The library's listening thread looks at its stop flag every two seconds only, or when a client connects.
  std::atomic<bool> stopped{false};
  std::thread waker([&] {
    while (!stopped) {
      Knock(ListenHost(options_.host), port_);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  mg_stop(context_);
  stopped = true;
  waker.join();
}

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Start(Options options) {
  InitLibrary();
  std::unique_ptr<HttpEndpoint> endpoint(new HttpEndpoint(std::move(options)));

  const std::string host = ListenHost(endpoint->options_.host);
  const bool v6 = host.find(':') != std::string::npos;
  const std::string listen =
      v6 ? absl::StrCat("[", host, "]:", endpoint->options_.port) : absl::StrCat(host, ":", endpoint->options_.port);
  // A client that says nothing holds one of the threads for a second at most, and a probe is soon impatient: with few
  // threads some silent strangers would have a healthy gateway restarted. A thread that waits costs about 20 KiB.
  const char* const settings[] = {"listening_ports",
                                  listen.c_str(),
                                  "num_threads",
                                  "64",
                                  "request_timeout_ms",
                                  "1000",
                                  "enable_keep_alive",
                                  "no",
                                  "max_request_size",
                                  "8192",
                                  "enable_directory_listing",
                                  "no",
                                  "decode_url",
                                  "no",
                                  "access_control_allow_methods",
                                  "",
                                  nullptr};
  mg_callbacks callbacks{};
  callbacks.log_message = DropLogMessage;
  callbacks.begin_request = BeginRequest;
  callbacks.http_error = BareError;

  mg_init_data init{};
  init.callbacks = &callbacks;
  init.user_data = endpoint.get();
  init.configuration_options = const_cast<const char**>(settings);
  char why[128] = "";
  mg_error_data error{};  // its member `code` differs between the library's versions, and is not needed
  error.text = why;
  error.text_buffer_size = sizeof why;

  endpoint->context_ = mg_start2(&init, &error);
  if (endpoint->context_ == nullptr) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", listen));
  }
  mg_server_port ports[2] = {};
  if (mg_get_server_ports(endpoint->context_, 2, ports) < 1) {
    return absl::InternalError("the HTTP library does not tell its port");
  }
  endpoint->port_ = static_cast<uint16_t>(ports[0].port);
  return endpoint;
}

int HttpEndpoint::Handle(void* opaque) noexcept {
  auto* connection = static_cast<mg_connection*>(opaque);
  Reply reply{404, "Not Found", kText, "not found\n"};
  try {
    const mg_request_info* request = mg_get_request_info(connection);
    const std::string_view path = request->local_uri == nullptr ? "" : request->local_uri;
    const std::string_view method = request->request_method == nullptr ? "" : request->request_method;
    if (method != "GET") {
      reply = {405, "Method Not Allowed", kText, "only GET\n"};
    } else if (path == "/metrics") {
      reply = {200, "OK", kPrometheusText, options_.metrics()};
    } else if (path == "/status" && options_.status) {
      reply = {200, "OK", kHtml, options_.status()};
    } else if (path == "/livez") {
      reply = !options_.alive || options_.alive() ? Reply{200, "OK", kText, "ok\n"}
                                                  : Reply{503, "Service Unavailable", kText, "the port is deaf\n"};
    } else if (path == "/readyz") {
      reply = Readiness(options_.reasons_not_ready());
    }
    const std::string text = Serialize(reply);
    mg_write(connection, text.data(), text.size());
    return reply.status;
  } catch (...) {
    static constexpr std::string_view kFailed =
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    mg_write(connection, kFailed.data(), kFailed.size());
    return 500;
  }
}

}  // namespace userintent::observe
