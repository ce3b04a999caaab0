// userintent-ledger: see tool.h.
#include <signal.h>

#include "server/admin/tool.h"
#include "server/base/process.h"
#include "server/rpc/grpc_log.h"

[[gnu::used,
  gnu::section(".preinit_array")]] void (*open_standard_descriptors)() = &userintent::OpenStandardDescriptors;

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  userintent::rpc::DropGrpcLog();  // what fails is said in one line, and not by libgrpc
  return userintent::admin::RunTool(argc, argv);
}
