// redirect_uri: whether a text may be the place where a browser is sent back to, by the gateway's rule
// (tests/conformance/authorization_urls.json).
//
// Any thread may call this.
#pragma once

#include "absl/strings/string_view.h"

namespace userintent {

// "https://HOST[:PORT]", or "http://HOST[:PORT]" on loopback, and then nothing, or '/' or '?' with what RFC 3986 allows
// behind it. At most 2,048 bytes; no user, no fragment, nothing outside ASCII, and the scheme in small letters.
bool IsRedirectUri(absl::string_view uri);

}  // namespace userintent
