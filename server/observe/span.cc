#include "server/observe/span.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace userintent::observe {
namespace {

using nlohmann::json;

json Text(std::string_view text) { return {{"stringValue", std::string(text)}}; }

json ValueOf(const SpanAttribute& attribute) {
  if (const auto* const text = std::get_if<std::string_view>(&attribute.value)) return Text(*text);
  // 64-bit numbers are strings in proto JSON.
  return {{"intValue", std::to_string(*std::get_if<int64_t>(&attribute.value))}};
}

std::string Nanos(absl::Time time) { return std::to_string(absl::ToUnixNanos(time)); }

json Written(const Span& span) {
  json written = {{"traceId", TraceIdText(span.trace_id)},
                  {"spanId", SpanIdText(span.span_id)},
                  {"name", std::string(span.name)},
                  {"kind", static_cast<int>(span.kind)},
                  {"startTimeUnixNano", Nanos(span.start)},
                  {"endTimeUnixNano", Nanos(span.end)},
                  {"flags", 1}};
  const bool root = std::all_of(span.parent.begin(), span.parent.end(), [](uint8_t byte) { return byte == 0; });
  if (!root) written["parentSpanId"] = SpanIdText(span.parent);
  if (span.failed) written["status"] = {{"code", 2}};
  json attributes = json::array();
  for (const SpanAttribute& attribute : span.attributes) {
    attributes.push_back({{"key", std::string(attribute.key)}, {"value", ValueOf(attribute)}});
  }
  if (!attributes.empty()) written["attributes"] = std::move(attributes);
  return written;
}

}  // namespace

std::string OtlpJson(std::span<const Span> spans, std::string_view version) {
  json all = json::array();
  for (const Span& span : spans) all.push_back(Written(span));
  json scope = {{"scope", {{"name", "userintent"}, {"version", std::string(version)}}}, {"spans", std::move(all)}};
  json attributes = json::array();
  attributes.push_back({{"key", "service.name"}, {"value", Text("userintent-server")}});
  attributes.push_back({{"key", "service.version"}, {"value", Text(version)}});
  json resource = {{"resource", {{"attributes", std::move(attributes)}}}};
  resource["scopeSpans"] = json::array({std::move(scope)});
  const json body = {{"resourceSpans", json::array({std::move(resource)})}};
  return body.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
}

}  // namespace userintent::observe
