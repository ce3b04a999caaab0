// TlsMetrics: what is counted of TLS: the handshakes of callers, and when what stands in files ends.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

// What ends. Of several authorities or lists the first.
enum class Ending {
  kServer,     // the certificate that callers see
  kClientCa,   // an authority of callers
  kClientCrl,  // a list of revoked certificates, which must be renewed
  kAstra,      // the certificate that Astra showed on the newest connection
  kAstraCa,    // an authority of --astra_ca_file
  kWebhook,    // the certificate that senders of webhooks see
};
inline constexpr int kEndings = 6;

class TlsMetrics {
 public:
  // The words are fixed and live as long as the process; their places are the numbers that AddHandshakes is given.
  TlsMetrics(prometheus::Registry& registry, std::span<const std::string_view> handshake_results);
  ~TlsMetrics();
  TlsMetrics(const TlsMetrics&) = delete;
  TlsMetrics& operator=(const TlsMetrics&) = delete;

  // As differences since the last call.
  void AddHandshakes(size_t result, uint64_t n) noexcept;

  // Never called: 0, there is none.
  void SetEnd(Ending what, std::chrono::system_clock::time_point end) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
