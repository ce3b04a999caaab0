// H2Settings: what all connections of one H2Client have in common.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "server/http/client.h"
#include "server/http/connection_limits.h"

namespace userintent::http {

// Times and limits that Options does not name. Tests shorten them.
struct H2Tuning {
  // A connection with streams that is silent for so long is asked for a sign of life, and broken if none comes.
  std::chrono::milliseconds ping_after{10000};
  std::chrono::milliseconds ping_timeout{10000};
  std::chrono::milliseconds idle_limit = kIdleLimit;
  std::chrono::milliseconds age_limit = kAgeLimit;
  // How long one address may keep the next one waiting (RFC 8305).
  std::chrono::milliseconds race_after{250};
  // How soon a failed attempt at one more connection is followed by the next while others are in use.
  std::chrono::milliseconds reconnect_after{1000};
  uint32_t max_streams = 256;  // on one connection, if the peer allows as many
  int32_t first_stream = 0;    // 0: as nghttp2 counts
  // What a peer may send that does nothing for an exchange before the next thing that does.
  int max_idle_frames = 10000;
  size_t max_idle_bytes = 4 << 20;
  size_t max_unsent = 64 << 10;  // plain bytes that are collected for one write
};

struct H2Settings {
  Options options;
  H2Tuning tuning;
  std::string authority;  // of the request, without the default port
};

// Why a connection is dead. The cause counts for exchanges that were not sent.
struct H2Failure {
  NotSentCause cause = NotSentCause::kConnect;
  std::string_view detail;
  bool no_http2 = false;  // the peer does not offer HTTP/2
};

}  // namespace userintent::http
