// userintent-ledger: see tool.h.
#include <signal.h>

#include <cstdio>

#include "server/admin/tool.h"
#include "server/base/environment.h"
#include "server/base/process.h"
#include "server/rpc/grpc_log.h"

[[gnu::used,
  gnu::section(".preinit_array")]] void (*open_standard_descriptors)() = &userintent::OpenStandardDescriptors;

[[gnu::used, gnu::section(".preinit_array")]] void (*clean_environment)(int, char**,
                                                                        char**) = &userintent::CleanEnvironment;

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  userintent::rpc::DropGrpcLog();  // what fails is said in one line, and not by libgrpc
  for (const userintent::RemovedVariables& removed : userintent::WhatWasRemoved()) {
    // The tool speaks to a socket of this machine, so the machine's proxies and authorities are nothing to tell at each
    // use.
    if (removed.kind != userintent::RemovedKind::kPrints) continue;
    std::fprintf(stderr, "userintent-ledger: warning: %s: %s\n", removed.names.c_str(), removed.why);
  }
  return userintent::admin::RunTool(argc, argv);
}
