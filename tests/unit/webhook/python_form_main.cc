// webhook-python-form: reads bodies, one a line in base64, and writes what the server makes of each, one a line: the
// Python form in base64, or "-" where the body has none. tests/e2e/test_webhook_form.py compares it with CPython.

#include <cstdio>
#include <iostream>
#include <optional>
#include <string>

#include "absl/strings/escaping.h"
#include "server/webhook/json_object.h"

int main() {
  using userintent::webhook::JsonObject;
  std::ios::sync_with_stdio(false);
  std::string line, body;
  while (std::getline(std::cin, line)) {
    if (!absl::Base64Unescape(line, &body)) return 1;
    const std::optional<JsonObject> object = JsonObject::Parse(body);
    std::cout << (object && object->plain() ? absl::Base64Escape(object->PythonForm()) : "-") << '\n';
  }
  return 0;
}
