#include "server/app/spans.h"

#include <array>
#include <string>
#include <string_view>

#include "server/rpc/methods.h"
#include "server/usecase/error_table.h"

namespace userintent {
namespace {

constexpr int64_t kCancelled = 1;  // gRPC's number

std::string_view SpanName(rpc::Method method) {
  static const auto& names = *[] {
    auto* all = new std::array<std::string, policy::kMethodCount>;
    for (size_t i = 0; i < all->size(); ++i) {
      (*all)[i] = "Recv." + std::string(rpc::ServiceName()) + "." + std::string(policy::kMethodNames[i]);
    }
    return all;
  }();
  return names[static_cast<size_t>(method)];
}

}  // namespace

observe::Span SpanOf(const rpc::EndedCall& call, absl::Time now) {
  observe::Span span;
  span.trace_id = call.span->own.trace_id;
  span.span_id = call.span->own.span_id;
  span.parent = call.span->parent;
  span.name = SpanName(call.method);
  span.kind = observe::Span::Kind::kServer;
  span.end = now;
  span.start = now - absl::FromChrono(call.took);
  const bool ok = call.reason == v1::ERROR_REASON_UNSPECIFIED;
  int64_t code = kCancelled;
  if (ok) {
    code = 0;
  } else if (call.reason) {
    code = static_cast<int64_t>(usecase::RowOf(*call.reason).code);
  }
  span.failed = !ok;
  span.attributes.push_back({"rpc.system", "grpc"});
  span.attributes.push_back({"rpc.grpc.status_code", code});
  if (call.reason && !ok) span.attributes.push_back({"userintent.reason", usecase::ReasonName(*call.reason)});
  if (call.replayed) span.attributes.push_back({"userintent.replayed", "true"});
  return span;
}

observe::Span SpanOf(const usecase::TracedExchange& exchange, absl::Time now) {
  observe::Span span;
  span.trace_id = exchange.span.trace_id;
  span.span_id = exchange.span.span_id;
  span.parent = exchange.parent;
  span.name = exchange.post ? "POST" : "GET";
  span.kind = observe::Span::Kind::kClient;
  span.end = now;
  span.start = now - absl::FromChrono(exchange.took);
  span.failed = exchange.http_status >= 400 || !exchange.error_type.empty();
  span.attributes.push_back({"http.request.method", span.name});
  if (exchange.http_status != 0) {
    span.attributes.push_back({"http.response.status_code", int64_t{exchange.http_status}});
  }
  if (!exchange.error_type.empty()) span.attributes.push_back({"error.type", exchange.error_type});
  return span;
}

}  // namespace userintent
