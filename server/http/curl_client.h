// The http::Client on libcurl: one multi handle, driven by socket_action from an epoll descriptor of its own.
//
// A CurlClient belongs to the calling thread from its first Start() on; see client.h for the rules. It owns every
// connection, handle and timer; requests and their secrets are owned by it until the exchange has ended and are then
// wiped. Inside a Done callback Start() and CancelUnsent() may be called, but the client must not be destroyed.
//
// curl_client.cc has the exchanges and the turn, curl_options.cc what libcurl is told, curl_callbacks.cc what it says.
#pragma once

#include <curl/curl.h>
#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/descriptor.h"
#include "server/http/client.h"
#include "server/http/curl_exchange.h"
#include "server/http/exchanges.h"

namespace userintent::http {

class CurlClient final : public Client {
 public:
  // Fails when the process is out of descriptors or memory, or when CurlGlobalInit() fails.
  static absl::StatusOr<std::unique_ptr<CurlClient>> Create(Options options);
  ~CurlClient() override;
  CurlClient(const CurlClient&) = delete;
  CurlClient& operator=(const CurlClient&) = delete;

  ExchangeId Start(Request request, Done done) override;
  bool CancelUnsent(ExchangeId id) override;
  int PollFd() const override { return epoll_.get(); }
  std::optional<SteadyTime> NextTimer() const override;
  void Turn() noexcept override;
  const Stats& stats() const override;

  // When the oldest late exchange began; it gives way to another client's.
  std::optional<SteadyTime> OldestLate();
  void EndOldestLate();

 private:
  // What is remembered with a TLS connection for as long as it lives.
  struct Connection;

  explicit CurlClient(Options options) : options_(std::move(options)), exchanges_(options_) {}

  // libcurl's callbacks. It is C and knows no exceptions: what throws in here ends the process.
  static int OnSocket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept;
  static int OnTimer(CURLM*, long timeout_ms, void* self) noexcept;
  static int OnResolverStart(void*, void*, void* exchange) noexcept;
  static curl_socket_t OnOpenSocket(void* exchange, curlsocktype purpose, curl_sockaddr* address) noexcept;
  static int OnCloseSocket(void* self, curl_socket_t fd) noexcept;
  static int OnPrereq(void* exchange, char* ip, char* local_ip, int port, int local_port) noexcept;
  static size_t OnRead(char* buffer, size_t size, size_t count, void* exchange) noexcept;
  static int OnSeek(void* exchange, curl_off_t offset, int origin) noexcept;
  static size_t OnHeader(char* data, size_t size, size_t count, void* exchange) noexcept;
  static size_t OnBody(char* data, size_t size, size_t count, void* exchange) noexcept;

  bool Release(CurlExchange& exchange, SSL* ssl, Connection& connection);
  Connection* ConnectionOf(SSL* ssl, const char* ip, int port, const char* local_ip, int local_port);
  int FindSocket(const char* ip, int port, const char* local_ip, int local_port) const;
  bool TakeStatusLine(CurlExchange& exchange, std::string_view line);
  void TakeHeadEnd(CurlExchange& exchange);
  void MaybeSent(CurlExchange& exchange);

  bool MakeMulti();
  void DropMulti();
  bool SetOptions(CurlExchange& exchange);
  bool Submit(CurlExchange& exchange);
  bool MaySubmitPending() const {
    return !options_.http2 && !pending_.empty() && handles_ < static_cast<size_t>(options_.max_connections);
  }
  void SubmitPending();
  void TakeHandle(CurlExchange& exchange);
  void BeginConnecting(CurlExchange& exchange);
  bool React();
  bool MayBeLeftStanding() const;
  bool Nudge(SteadyTime now);
  void RelaxPending();
  void CollectEnded();
  bool StartAgain(CurlExchange& exchange);
  void ApplyDeadlines(SteadyTime now);
  void MakeWay(SteadyTime now);
  void End(CurlExchange& exchange, CURLcode code);
  void Fail(CurlExchange& exchange);
  void Finish(CurlExchange& exchange, CURLcode code, NotSentCause cause);
  void FailAll();

  const Options options_;
  const Descriptor epoll_{epoll_create1(EPOLL_CLOEXEC)};
  CURLM* multi_ = nullptr;
  CURLSH* share_ = nullptr;
  std::vector<CURL*> pool_;                    // handles without an exchange, already reset
  std::unordered_map<int, uint32_t> watched_;  // sockets in the epoll set and their events
  std::vector<int> sockets_;                   // open sockets of connections, watched or idle
  std::optional<SteadyTime> timer_;            // libcurl's
  bool timer_told_ = false;                    // it spoke since the flag was cleared

  Exchanges<CurlExchange> exchanges_;
  LinkedList<CurlExchange, &CurlExchange::in_connecting> connecting_;  // in order of `connecting_since`
  LinkedList<CurlExchange, &CurlExchange::in_pending> pending_;
  SteadyTime next_way_{};  // not before, do late ones make way again
  SteadyTime next_nudge_{};
  size_t handles_ = 0;              // that exchanges have, late ones too
  std::vector<ExchangeId> unseen_;  // over HTTP/2: given to it since the last turn
  mutable Stats stats_;
};

}  // namespace userintent::http
