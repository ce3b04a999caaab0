// redirect_uri: what may be registered as the place where a browser is sent back to (RFC 6749 section 3.1.2). Pure; any
// thread.
#pragma once

#include <string_view>

namespace userintent::net {

// "https://HOST[:PORT]", or "http://HOST[:PORT]" where HOST is a loopback address or localhost, and then nothing, or
// '/' or '?' with what RFC 3986 allows behind it. At most 2,048 bytes; no user, no fragment, nothing outside ASCII, and
// the scheme in small letters: redirect URIs are compared byte by byte, so there is one way to write each.
bool IsRedirectUri(std::string_view text);

}  // namespace userintent::net
