// Compiled as C++17 whatever the rest is compiled as; see CMakeLists.txt.
#include "userintent/redact.h"
// The others after it, so that each header comes first in some file: client.h does so in client.cc.
#include "userintent/authorization_url.h"
#include "userintent/channel.h"
#include "userintent/client.h"
#include "userintent/error.h"
#include "userintent/testing/fake_watch.h"
#include "userintent/testing/mock_client.h"
#include "userintent/watch.h"

static_assert(__cplusplus == 201703L);
