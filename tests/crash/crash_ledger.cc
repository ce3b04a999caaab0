// crash-ledger: userintent-ledger, with the same command line, that ends itself by SIGKILL at a named point of its
// code.
//
//   CRASH_AT=name           at the first arrival at the point of that name
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "server/admin/tool.h"
#include "server/base/crash_point.h"
#include "server/rpc/grpc_log.h"

namespace userintent {

void InstallCrashHook(CrashHook::Function hook) { CrashHook::installed_.store(hook); }

namespace {

std::string crash_name;  // written before anything else runs

void CrashIfHere(std::string_view name) {
  if (name != crash_name) return;
  kill(getpid(), SIGKILL);
  for (;;) pause();  // no instruction beyond the point
}

}  // namespace
}  // namespace userintent

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  userintent::rpc::DropGrpcLog();
  if (const char* at = std::getenv("CRASH_AT"); at != nullptr) {
    userintent::crash_name = at;
    userintent::InstallCrashHook(&userintent::CrashIfHere);
  }
  return userintent::admin::RunTool(argc, argv);
}
