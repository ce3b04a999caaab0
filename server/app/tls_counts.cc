#include "server/app/tls_counts.h"

namespace userintent {

using observe::Ending;

void TlsCounts::Count() {
  const auto now = rpc::Handshakes();
  for (size_t i = 0; i < now.size(); ++i) {
    metrics_.tls().AddHandshakes(i, now[i] - std::exchange(handshakes_[i], now[i]));
  }
  if (files_.authorities) metrics_.tls().SetEnd(Ending::kAstraCa, FirstEnd(*files_.authorities->Snapshot()));
  if (files_.webhook_tls) metrics_.tls().SetEnd(Ending::kWebhook, files_.webhook_tls->not_after());
  if (!files_.tls) return;
  metrics_.tls().SetEnd(Ending::kServer, files_.tls.certificate->Snapshot()->not_after);
  const auto trust = files_.tls.authorities->Snapshot();
  metrics_.tls().SetEnd(Ending::kClientCa, trust->not_after);
  if (trust->lists_end) metrics_.tls().SetEnd(Ending::kClientCrl, *trust->lists_end);
}

}  // namespace userintent
