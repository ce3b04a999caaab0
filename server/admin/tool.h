// admin::RunTool: userintent-ledger, the operator's tool. Single-threaded; everything but the exit of the process.
#pragma once

namespace userintent::admin {

// Does what the command line says: beside a running server through its socket, otherwise on the ledger file. Answers go
// to stdout, errors as one line to stderr. Returns the exit status: 0 done, 1 refused or not found, 2 wrong usage.
int RunTool(int argc, const char* const* argv);

}  // namespace userintent::admin
