// What the webhook door thinks of a request's head, before a byte of its body is looked at.
//
// Pure; any thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "server/webhook/answers.h"

namespace userintent::webhook {

inline constexpr size_t kLongestBody = size_t{64} * 1024;

struct Head {
  std::string_view method, path, version;  // the path alone, or the whole URI (RFC 9112 section 3.2.2)
  // Of each field how often it came, and one of the values.
  struct Field {
    int times = 0;
    std::string_view value;
  };
  Field content_length{}, transfer_encoding{}, signature{}, host{};

  // Keeps a header field that the door looks at.
  void Take(std::string_view name, std::string_view value);
};

struct HeadVerdict {
  std::optional<Answer> refusal;
  // False: where the body ends is not known, or further away than anybody should wait for, so the connection closes
  // after the answer. True: the body is read first, so that a client that sends before it listens hears the answer.
  bool read_body = true;
  size_t length = 0;  // of the body, where it is read
};

HeadVerdict JudgeHead(const Head& head, std::string_view path);

}  // namespace userintent::webhook
