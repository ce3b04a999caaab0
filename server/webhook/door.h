// Door: where Astra's webhooks come in (contract section 8). It checks who signed, makes sure that the webhook is
// durable, and only then answers 200. What a webhook means is not its business.
//
// It faces the internet, so it has a thread and limits of its own: a request must be complete within 10 seconds, there
// are only so many connections in all and from one address (connections.h), and nothing of a request is logged.
//
// One thread, which libmicrohttpd is driven by: it waits on the library's descriptor and on the inbox (Post), so that
// deadlines, answers of the ledger and the library never meet on two threads. Open, Stop and the destructor belong to
// the owner's thread; Post may be called from any, also after Stop: the door outlives the ledger's last answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/base/descriptor.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/ledger/webhook_queue.h"
#include "server/net/host_port.h"
#include "server/webhook/answers.h"
#include "server/webhook/connections.h"
#include "server/webhook/head.h"
#include "server/webhook/keys.h"
#include "server/webhook/signature.h"
#include "server/webhook/tls_identity.h"

struct MHD_Connection;  // of libmicrohttpd
struct MHD_Daemon;

namespace userintent::webhook {

// Why a connection was closed without an answer, or in place of one.
enum class Cut { kFull, kAddressFull, kTooSlow, kIdle, kStopping };
inline constexpr std::string_view kCutNames[] = {"webhook_connections", "webhook_connections_per_address", "too_slow",
                                                 "idle", "stopping"};

// Told about what happens, for logs and metrics. Called on the door's thread; must not block.
class DoorObserver {
 public:
  virtual ~DoorObserver() = default;
  // An answer is on its way, so long after its request began.
  virtual void OnAnswer(Answer answer, SteadyClock::duration took) = 0;
  virtual void OnSignature(KeyKind key, Form form) = 0;
  virtual void OnCut(Cut why) = 0;
  virtual void OnConnections(size_t open) = 0;
};

struct DoorOptions {
  net::HostPort listen;
  std::string path = "/astra/webhooks";
  int max_connections = 512;
  int max_per_address = 256;
  std::chrono::milliseconds request_limit{10'000};  // from the connection, or from the request's first line
  std::chrono::milliseconds ledger_limit{5'000};    // Astra itself gives up after 10 seconds
  std::chrono::milliseconds idle_limit{30'000};     // between two requests
  std::chrono::milliseconds stop_limit{2'000};      // for requests that come in while the door closes
};

class Door final : public Executor {
 public:
  // Everything outlives the door; `tls` null: plain HTTP. The status says in one line why it does not listen.
  static absl::StatusOr<std::unique_ptr<Door>> Open(DoorOptions options, const Keys& keys, const TlsIdentity* tls,
                                                    ledger::WebhookQueue& queue, DoorObserver& observer);
  ~Door() override;
  Door(const Door&) = delete;
  Door& operator=(const Door&) = delete;

  void Post(Task task) override;

  // Stops listening, answers the requests that have begun, and ends the thread. A second call does nothing.
  void Stop();

  uint16_t port() const { return port_; }

 private:
  struct Request;
  struct Callbacks;  // what the library calls

  Door(DoorOptions options, const Keys& keys, const TlsIdentity* tls, ledger::WebhookQueue& queue,
       DoorObserver& observer);

  absl::Status Listen();
  absl::Status StartDaemon(int listener);

  // The thread.
  void Run();
  bool MayEnd() const;
  void RunTasks();
  void Wait();
  void BeginStop();
  void Sweep();
  void OnLate(Connection& connection);

  // Connections.
  void OnConnected(MHD_Connection* handle, void** context);
  void OnDisconnected(void* context);
  void Enter(Connection& connection, Phase phase, std::chrono::milliseconds limit);
  void CutOff(Connection& connection, Cut why);

  // Requests. False: the connection is to be closed.
  bool OnHead(Request& request, const Head& head);
  bool OnComplete(Request& request);
  void Ask(Request& request, ledger::Webhook webhook);
  void OnReceipt(uint64_t number, ledger::Receipt receipt);
  bool Reply(Request& request, Answer answer, bool close);
  std::optional<Answer> Judge(const Request& request, ledger::Webhook* webhook);

  const DoorOptions options_;
  const Keys& keys_;
  const TlsIdentity* const tls_;
  ledger::WebhookQueue& queue_;
  DoorObserver& observer_;
  Descriptor wake_;
  uint16_t port_ = 0;
  MHD_Daemon* daemon_ = nullptr;

  Mutex mutex_;
  std::vector<Task> inbox_ ABSL_GUARDED_BY(mutex_);

  // The thread's own.
  bool stopping_ = false;
  SteadyTime stop_by_{};
  SteadyTime next_sweep_{};
  Connections connections_;
  uint64_t last_number_ = 0;
  absl::flat_hash_map<uint64_t, Request*> asked_;  // by number: requests that wait for the ledger
  std::thread thread_;
};

}  // namespace userintent::webhook
