#include "server/webhook/door.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "server/base/errno_text.h"
#include "server/webhook/door_parts.h"
#include "server/webhook/tls_material.h"

// In this file: the library's callbacks; Open; the thread; connections. Requests: door_requests.cc.

namespace userintent::webhook {
namespace {

constexpr size_t kMemoryPerConnection = size_t{16} * 1024;  // of the library; a head that does not fit is a 431
constexpr int kSpareConnections = 64;                       // of the library's own limit: those that are being closed
constexpr std::chrono::milliseconds kShortestSweep{50}, kLongestSweep{1000};
constexpr char kTlsVersions[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

// Sent past the library, which closes slow connections without a word.
constexpr std::string_view kTooSlowAnswer =
    "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo slow\n";

// The certificate of the door whose thread this is. GnuTLS asks for it without a context of ours.
thread_local const TlsIdentity* tls_of_this_thread = nullptr;

int RetrieveCertificate(gnutls_session_t, const gnutls_datum_t*, int, const gnutls_pk_algorithm_t*, int,
                        gnutls_pcert_st** chain, unsigned int* size, gnutls_privkey_t* key) {
  if (tls_of_this_thread == nullptr) return -1;
  const TlsIdentity::Material& material = tls_of_this_thread->Current();
  *chain = const_cast<gnutls_pcert_st*>(material.chain.data());  // GnuTLS only reads it
  *size = static_cast<unsigned int>(material.chain.size());
  *key = material.key;
  return 0;
}

Link* LinkOf(MHD_Connection* handle) {
  return static_cast<Link*>(MHD_get_connection_info(handle, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context);
}

// What the peer hears before the connection closes, where the library would close it without a word.
void SendPastTheLibrary(const Link& link, std::string_view text) {
  const MHD_ConnectionInfo* const tls = MHD_get_connection_info(link.handle, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (tls == nullptr || tls->tls_session == nullptr) {
    (void)send(link.fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (link.spoke) {
    (void)gnutls_record_send(static_cast<gnutls_session_t>(tls->tls_session), text.data(), text.size());
  }
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Address AddressOf(const net::HostPort& listen) {
  const std::string host = listen.host == "localhost" ? "127.0.0.1" : listen.host;
  Address address;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(listen.port);
    address.size = sizeof v4;
    return address;
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(listen.port);
  address.size = sizeof v6;
  return address;
}

void Set(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

}  // namespace

// ---- what the library calls; `self` is the door

struct Door::Callbacks {
  static void* OnLine(void* self, const char*, MHD_Connection* handle) {
    auto* const door = static_cast<Door*>(self);
    Link& link = *LinkOf(handle);
    link.spoke = true;
    link.request_began = SteadyClock::now();
    // The first request's time runs since the connection.
    if (link.phase == Phase::kIdle) door->Enter(link, Phase::kReading, door->options_.request_limit);
    return nullptr;
  }

  static MHD_Result OnRequest(void* self, MHD_Connection* handle, const char* path, const char* method,
                              const char* version, const char* data, size_t* size, void** context) {
    auto* const door = static_cast<Door*>(self);
    auto* request = static_cast<Request*>(*context);
    bool go_on = true;
    if (request == nullptr) {
      request = new Request(*LinkOf(handle));
      *context = request;
      Head head{method, path, version};
      MHD_get_connection_values_n(handle, MHD_HEADER_KIND, &TakeHeader, &head);
      go_on = door->OnHead(*request, head);
    } else if (*size > 0) {
      go_on = request->answer || request->Take({data, *size});
      *size = 0;
    } else {
      go_on = door->OnComplete(*request);
    }
    return go_on ? MHD_YES : MHD_NO;
  }

  static void OnCompleted(void* self, MHD_Connection*, void** context, MHD_RequestTerminationCode) {
    auto* const door = static_cast<Door*>(self);
    const std::unique_ptr<Request> request(static_cast<Request*>(std::exchange(*context, nullptr)));
    if (!request) return;
    door->asked_.erase(request->asked);
    door->Enter(request->link, Phase::kIdle, door->options_.idle_limit);
  }

  static void OnConnection(void* self, MHD_Connection* handle, void** context, MHD_ConnectionNotificationCode code) {
    auto* const door = static_cast<Door*>(self);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
      door->OnConnected(handle, context);
    } else {
      door->OnDisconnected(*context);
    }
  }

  // Paths are compared as they come: what is percent-encoded is another path.
  static size_t KeepEscapes(void*, MHD_Connection*, char* text) { return std::string_view(text).size(); }

  static MHD_Result TakeHeader(void* head, MHD_ValueKind, const char* name, size_t name_size, const char* value,
                               size_t value_size) {
    static_cast<Head*>(head)->Take({name, name_size}, value == nullptr ? "" : std::string_view(value, value_size));
    return MHD_YES;
  }
};

// ---- opening

absl::StatusOr<std::unique_ptr<Door>> Door::Open(DoorOptions options, const Keys& keys, const TlsIdentity* tls,
                                                 ledger::WebhookQueue& queue, DoorObserver& observer) {
  std::unique_ptr<Door> door(new Door(std::move(options), keys, tls, queue, observer));
  if (absl::Status status = door->Listen(); !status.ok()) return status;
  door->thread_ = std::thread([raw = door.get()] { raw->Run(); });
  return door;
}

Door::Door(DoorOptions options, const Keys& keys, const TlsIdentity* tls, ledger::WebhookQueue& queue,
           DoorObserver& observer)
    : options_(std::move(options)),
      keys_(keys),
      tls_(tls),
      queue_(queue),
      observer_(observer),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      connections_(options_.max_connections, options_.max_per_address) {}

Door::~Door() { Stop(); }

absl::Status Door::Listen() {
  const Address address = AddressOf(options_.listen);
  Descriptor fd(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd.get() < 0 || wake_.get() < 0) return absl::UnavailableError(ErrnoText());
  Set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  Set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0 || getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0) {
    return absl::UnavailableError(ErrnoText());
  }
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                            : reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  return StartDaemon(fd.release());
}

absl::Status Door::StartDaemon(int listener) {
  unsigned int flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
  std::vector<MHD_OptionItem> options = {
      {MHD_OPTION_LISTEN_SOCKET, listener, nullptr},
      {MHD_OPTION_CONNECTION_LIMIT, options_.max_connections + kSpareConnections, nullptr},
      {MHD_OPTION_CONNECTION_MEMORY_LIMIT, static_cast<intptr_t>(kMemoryPerConnection), nullptr},
      {MHD_OPTION_STRICT_FOR_CLIENT, 1, nullptr},
      {MHD_OPTION_URI_LOG_CALLBACK, reinterpret_cast<intptr_t>(&Callbacks::OnLine), this},
      {MHD_OPTION_UNESCAPE_CALLBACK, reinterpret_cast<intptr_t>(&Callbacks::KeepEscapes), nullptr},
      {MHD_OPTION_NOTIFY_COMPLETED, reinterpret_cast<intptr_t>(&Callbacks::OnCompleted), this},
      {MHD_OPTION_NOTIFY_CONNECTION, reinterpret_cast<intptr_t>(&Callbacks::OnConnection), this},
  };
  if (tls_ != nullptr) {
    flags |= MHD_USE_TLS;
    options.push_back({MHD_OPTION_HTTPS_PRIORITIES, 0, const_cast<char*>(kTlsVersions)});
    options.push_back({MHD_OPTION_HTTPS_CERT_CALLBACK, 0, reinterpret_cast<void*>(&RetrieveCertificate)});
  }
  options.push_back({MHD_OPTION_END, 0, nullptr});
  daemon_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &Callbacks::OnRequest, this, MHD_OPTION_ARRAY, options.data(),
                             MHD_OPTION_END);
  if (daemon_ == nullptr) return absl::InternalError("the HTTP library does not start");
  return absl::OkStatus();
}

// ---- the thread

void Door::Post(Task task) {
  {
    const MutexLock lock(mutex_);
    inbox_.push_back(std::move(task));
  }
  const uint64_t one = 1;
  (void)!write(wake_.get(), &one, sizeof one);
}

void Door::Stop() {
  if (thread_.joinable()) {
    Post([this] { BeginStop(); });
    thread_.join();
  }
  if (daemon_ != nullptr) MHD_stop_daemon(std::exchange(daemon_, nullptr));
}

void Door::Run() {
  tls_of_this_thread = tls_;
  while (!MayEnd()) {
    RunTasks();
    MHD_run(daemon_);
    if (SteadyClock::now() >= next_sweep_) Sweep();
    if (!MayEnd()) Wait();
  }
  // The library may not be stopped with a request that it thinks will go on.
  while (!asked_.empty()) OnReceipt(asked_.begin()->first, ledger::Receipt::kUnavailable);
  MHD_run(daemon_);
}

bool Door::MayEnd() const {
  return stopping_ && (connections_.all().empty() || SteadyClock::now() > stop_by_ + kLongestSweep);
}

void Door::RunTasks() {
  uint64_t count = 0;
  (void)!read(wake_.get(), &count, sizeof count);
  std::vector<Task> tasks;
  {
    const MutexLock lock(mutex_);
    tasks.swap(inbox_);
  }
  for (Task& task : tasks) task();
}

// Until a descriptor is ready, a task was posted, or something is due.
void Door::Wait() {
  const auto until_sweep = std::chrono::ceil<std::chrono::milliseconds>(next_sweep_ - SteadyClock::now());
  auto limit = static_cast<int64_t>(std::max<int64_t>(until_sweep.count(), 0));
  MHD_UNSIGNED_LONG_LONG wanted = 0;
  if (MHD_get_timeout(daemon_, &wanted) == MHD_YES) limit = std::min(limit, static_cast<int64_t>(wanted));
  const MHD_DaemonInfo* const info = MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_EPOLL_FD);
  pollfd fds[] = {{wake_.get(), POLLIN, 0}, {info->epoll_fd, POLLIN, 0}};
  poll(fds, std::size(fds), static_cast<int>(limit));
}

// Requests that have begun get their answer; whoever is silent, or too slow now, is sent away.
void Door::BeginStop() {
  stopping_ = true;
  stop_by_ = SteadyClock::now() + options_.stop_limit;
  next_sweep_ = {};
  const Descriptor listener(MHD_quiesce_daemon(daemon_));  // the library does not close it then
  for (Connection* const connection : connections_.all()) {
    const bool silent = connection->phase == Phase::kIdle || !static_cast<const Link*>(connection)->spoke;
    if (silent) CutOff(*connection, Cut::kStopping);
    connection->deadline = std::min(connection->deadline, stop_by_);
  }
}

void Door::Sweep() {
  const SteadyTime now = SteadyClock::now();
  for (Connection* const connection : connections_.Late(now)) OnLate(*connection);
  next_sweep_ = std::clamp(connections_.NextDeadline(), now + kShortestSweep, now + kLongestSweep);
}

void Door::OnLate(Connection& connection) {
  switch (connection.phase) {
    case Phase::kReading:
      SendPastTheLibrary(static_cast<const Link&>(connection), kTooSlowAnswer);
      observer_.OnAnswer(Answer::kTooSlow, SteadyClock::now() - connection.since);
      CutOff(connection, Cut::kTooSlow);
      break;
    case Phase::kAsking:
      for (const auto& [number, request] : asked_) {
        if (&request->link == &connection) return OnReceipt(number, ledger::Receipt::kUnavailable);
      }
      break;
    case Phase::kAnswering:
      CutOff(connection, Cut::kTooSlow);
      break;
    case Phase::kIdle:
      CutOff(connection, Cut::kIdle);
      break;
  }
}

// ---- connections

void Door::OnConnected(MHD_Connection* handle, void** context) {
  auto* const link = new Link;
  *context = link;
  link->handle = handle;
  link->fd = MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
  link->address = AddressKey(MHD_get_connection_info(handle, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
  Enter(*link, Phase::kReading, options_.request_limit);
  const Connections::Admission admission = connections_.Add(link);
  if (admission.goes != nullptr) {
    CutOff(*admission.goes, admission.room == Connections::Room::kFull ? Cut::kFull : Cut::kAddressFull);
  }
  observer_.OnConnections(connections_.all().size());
}

void Door::OnDisconnected(void* context) {
  const std::unique_ptr<Link> link(static_cast<Link*>(context));
  connections_.Remove(link.get());
  observer_.OnConnections(connections_.all().size());
}

void Door::Enter(Connection& connection, Phase phase, std::chrono::milliseconds limit) {
  connection.phase = phase;
  connection.since = SteadyClock::now();
  connection.deadline = connection.since + limit;
  if (stopping_) connection.deadline = std::min(connection.deadline, stop_by_);
  next_sweep_ = std::min(next_sweep_, connection.deadline);
}

// The library sees the end of the connection, and closes it.
void Door::CutOff(Connection& connection, Cut why) {
  if (std::exchange(connection.cut, true)) return;
  observer_.OnCut(why);
  shutdown(connection.fd, SHUT_RDWR);
}

}  // namespace userintent::webhook
