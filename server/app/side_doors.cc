#include "server/app/side_doors.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/observe/log.h"

namespace userintent {

using observe::Level;
using observe::Log;
using observe::SafeText;

absl::StatusOr<std::unique_ptr<SideDoors>> SideDoors::Open(const net::HostPort& bound, rpc::Acceptor& acceptor,
                                                           View view) {
  std::unique_ptr<SideDoors> doors(new SideDoors(view));
  doors->OpenProbe(bound, acceptor);
  doors->OpenHealthDoor(bound);
  if (const net::HostPort& listen = view.settings.metrics_listen; !listen.empty()) {
    if (absl::Status status = doors->OpenEndpoint(listen, bound); !status.ok()) return status;
  }
  return doors;
}

SideDoors::~SideDoors() = default;

void SideDoors::OpenProbe(const net::HostPort& bound, rpc::Acceptor& acceptor) {
  rpc::PortProbeOptions options;
  options.host = bound.host;
  options.port = bound.port;
  options.tls = view_.settings.tls();
  options.announce = [&acceptor](uint16_t port) { acceptor.ExpectProbeFrom(port); };
  options.call = [this](std::chrono::milliseconds patience) {
    return calls_to_self_.Answered(absl::FromChrono(patience));
  };
  probe_ = std::make_unique<rpc::PortProbe>(std::move(options));
}

void SideDoors::OpenHealthDoor(const net::HostPort& bound) {
  auto door = rpc::HealthDoor::Open(bound.Text(), [this] {
    std::vector<std::string> reasons = ReasonsNotReady();
    return reasons.empty() ? rpc::HealthDoor::kServing : std::move(reasons.front());
  });
  if (door.ok()) {
    health_door_ = *std::move(door);
    return;
  }
  const std::string text = absl::StrCat(std::string(door.status().message()), "; --healthcheck has to call the port");
  Log(Level::kWarn, "warning", {{"warning", SafeText(text)}});
}

absl::Status SideDoors::OpenEndpoint(const net::HostPort& listen, const net::HostPort& bound) {
  status_ = std::make_unique<Status>(Status::View{view_.settings, view_.admission, view_.metrics,
                                                  [this] { return AllReasonsNotReady(); }, bound.Text()},
                                     UnresolvedReader::Of(view_.settings, view_.operators));
  observe::HttpEndpoint::Options options;
  options.host = listen.host;
  options.port = listen.port;
  options.metrics = [this] { return view_.metrics.Text(); };
  options.reasons_not_ready = [this] { return AllReasonsNotReady(); };
  options.status = [this] { return status_->Page(); };
  options.alive = [this] { return port_answers(); };
  auto started = observe::HttpEndpoint::Start(std::move(options));
  if (!started.ok()) {
    return absl::UnavailableError(
        absl::StrCat("--metrics_listen: cannot listen on ", listen.Text(), ": is the port in use?"));
  }
  endpoint_ = *std::move(started);
  metrics_host_ = listen.host;
  return absl::OkStatus();
}

std::vector<std::string> SideDoors::ReasonsNotReady() const {
  std::vector<std::string> reasons;
  if (view_.admission.draining()) {
    reasons.emplace_back("it drains");
  } else if (view_.leaving) {
    reasons.emplace_back("it will drain in a moment");
  }
  if (!view_.ledger.Writable()) reasons.emplace_back("the ledger cannot be written");
  if (!port_answers()) reasons.emplace_back("its port does not answer");
  return reasons;
}

std::vector<std::string> SideDoors::AllReasonsNotReady() const {
  std::vector<std::string> reasons = ReasonsNotReady();
  if (view_.webhooks == nullptr) return reasons;
  for (std::string& reason : view_.webhooks->ReasonsNotReady()) reasons.push_back(std::move(reason));
  return reasons;
}

net::HostPort SideDoors::metrics_address() const {
  return endpoint_ ? net::HostPort{metrics_host_, endpoint_->port()} : net::HostPort{};
}

}  // namespace userintent
