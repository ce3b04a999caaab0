// userintent-ledger: see tool.h.
#include <grpc/support/log.h>
#include <signal.h>

#include "server/admin/tool.h"
#include "server/base/process.h"

[[gnu::used,
  gnu::section(".preinit_array")]] void (*open_standard_descriptors)() = &userintent::OpenStandardDescriptors;

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  gpr_set_log_function([](gpr_log_func_args*) {});  // what fails is said in one line, and not by libgrpc
  return userintent::admin::RunTool(argc, argv);
}
