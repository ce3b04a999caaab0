#include "server/observe/tls_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <string>
#include <vector>

namespace userintent::observe {
namespace {

// Indexed by Ending.
constexpr std::string_view kEndingNames[kEndings] = {"server", "client_ca", "client_crl",
                                                     "astra",  "astra_ca",  "webhook"};

}  // namespace

struct TlsMetrics::Parts {
  std::vector<prometheus::Counter*> handshakes;  // by result
  std::array<prometheus::Gauge*, kEndings> ends{};
};

TlsMetrics::TlsMetrics(prometheus::Registry& registry, std::span<const std::string_view> handshake_results)
    : parts_(std::make_unique<Parts>()) {
  prometheus::Family<prometheus::Counter>& handshakes =
      prometheus::BuildCounter()
          .Name("grpc_server_tls_handshakes_total")
          .Help("TLS handshakes with callers by what became of them, in the words of gRPC's proposal A118.")
          .Register(registry);
  for (const std::string_view result : handshake_results) {
    parts_->handshakes.push_back(&handshakes.Add({{"result", std::string(result)}}));
  }
  prometheus::Family<prometheus::Gauge>& ends =
      prometheus::BuildGauge()
          .Name("userintent_certificate_not_after_seconds")
          .Help(
              "When a certificate in use ends, or a list of revoked ones must be renewed (client_crl), in seconds "
              "since 1970; of several the first; of Astra the one that it showed last; 0: there is none.")
          .Register(registry);
  for (size_t i = 0; i < parts_->ends.size(); ++i)
    parts_->ends[i] = &ends.Add({{"which", std::string(kEndingNames[i])}});
}

TlsMetrics::~TlsMetrics() = default;

void TlsMetrics::AddHandshakes(size_t result, uint64_t n) noexcept {
  parts_->handshakes[result]->Increment(static_cast<double>(n));
}

void TlsMetrics::SetEnd(Ending what, std::chrono::system_clock::time_point end) noexcept {
  const auto since = std::chrono::duration_cast<std::chrono::seconds>(end.time_since_epoch());
  parts_->ends[static_cast<size_t>(what)]->Set(static_cast<double>(since.count()));
}

}  // namespace userintent::observe
