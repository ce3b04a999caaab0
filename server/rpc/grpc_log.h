// Where libgrpc's own log lines go, whichever gRPC this is.
//
// libgrpc prints header values at error level ("Error parsing metadata: ..."), which may be personal data. Up to 1.65
// it hands its lines to one function of the process; from 1.66 on it writes them with Abseil, whose way to stderr is
// shut here for the whole process, for protobuf's lines too.
//
// Called by main before other threads exist; what they install may be called by any thread.
#pragma once

namespace userintent::rpc {

// What libgrpc says goes nowhere: while a program starts, and its failure is told in one line.
void DropGrpcLog();

// From here on its errors become lines of the log (observe/log.h) with file and line only; its texts go nowhere.
void RouteGrpcLog();

}  // namespace userintent::rpc
