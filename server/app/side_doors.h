// SideDoors: where a running server is looked at beside its gRPC port: its own probe of port and calls, the door of
// --healthcheck, and /metrics, /livez, /readyz and /status.
//
// server.cc owns it, opens it when calls are answered, and destroys it before what it looks at. The questions may be
// asked on any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/app/status.h"
#include "server/app/webhooks.h"
#include "server/config/settings.h"
#include "server/ledger/ledger.h"
#include "server/ledger/operator_access.h"
#include "server/observe/http_endpoint.h"
#include "server/observe/metrics.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/health_door.h"
#include "server/rpc/healthcheck.h"
#include "server/rpc/port_probe.h"
#include "server/usecase/admission_control.h"

namespace userintent {

class SideDoors {
 public:
  // What is looked at.
  struct View {
    grpc::Server& grpc;
    const config::Settings& settings;
    const usecase::AdmissionControl& admission;
    const std::atomic<bool>& leaving;  // it was told to stop, and may still take calls
    const ledger::Ledger& ledger;
    const observe::Metrics& metrics;
    const Webhooks* webhooks;           // null: none are received
    ledger::OperatorAccess* operators;  // the ledger, where it is in a file of this process
  };

  // `bound`: the address of the gRPC port, which `acceptor` listens on. Without a door for --healthcheck there is a
  // warning in the log; without an endpoint for --metrics_listen the status names that flag.
  static absl::StatusOr<std::unique_ptr<SideDoors>> Open(const net::HostPort& bound, rpc::Acceptor& acceptor,
                                                         View view);
  ~SideDoors();
  SideDoors(const SideDoors&) = delete;
  SideDoors& operator=(const SideDoors&) = delete;

  // Why new calls should go elsewhere: fixed words, most important first; empty: the server is ready.
  std::vector<std::string> ReasonsNotReady() const;
  // The same for /readyz, which speaks of webhooks, too: they are no reason to end a server that answers calls.
  std::vector<std::string> AllReasonsNotReady() const;

  // Whether the gRPC port answers, and calls are, as far as the probe knows.
  bool port_answers() const { return probe_->alive(); }
  // Before the port is closed.
  void StopProbe() { probe_->Stop(); }

  // Where /metrics is; empty where it is off.
  net::HostPort metrics_address() const;

 private:
  explicit SideDoors(View view) : view_(view), calls_to_self_(view.grpc) {}

  void OpenProbe(const net::HostPort& bound, rpc::Acceptor& acceptor);
  void OpenHealthDoor(const net::HostPort& bound);
  absl::Status OpenEndpoint(const net::HostPort& listen, const net::HostPort& bound);

  const View view_;
  std::string metrics_host_;
  // Destroyed in reverse: the askers before the probe that they ask.
  rpc::CallsToSelf calls_to_self_;  // the probe's
  std::unique_ptr<rpc::PortProbe> probe_;
  std::unique_ptr<rpc::HealthDoor> health_door_;
  std::unique_ptr<Status> status_;
  std::unique_ptr<observe::HttpEndpoint> endpoint_;
};

}  // namespace userintent
