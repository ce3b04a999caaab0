// The signature of a webhook: base64(HMAC-SHA256(key, text)) in the header Astra-Verification (contract section 8).
//
// Astra signs what Python's json.dumps made of the body, and sends perhaps another text of the same object. So two
// texts count: the body as it came, and the object in CPython's form. All keys are tried with all texts, and every
// digest is compared in constant time; neither tells by its time how near a forged one was.
//
// Pure; any thread.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "server/base/secret.h"

namespace userintent::webhook {

enum class Form { kRaw, kPython };
inline constexpr std::string_view kFormNames[] = {"raw", "python"};

struct Match {
  size_t key = 0;  // place among the keys
  Form form = Form::kRaw;
};

// Which key and which text the header signs: the first of the keys, and the raw body before its Python form. Nothing:
// none. `python_form` is nothing where the body has none.
std::optional<Match> FindMatch(std::string_view header, std::string_view body,
                               std::optional<std::string_view> python_form, absl::Span<const Secret> keys);

}  // namespace userintent::webhook
