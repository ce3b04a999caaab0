// The variables of the environment that libraries of this process would heed, and must not: they make a library print
// what calls hold, write down keys, send traffic elsewhere, or trust others. They are taken out before any library's
// constructor runs, and named in a warning. docs/operations.md has the list, and why each is on it.
#pragma once

#include <string>
#include <vector>

namespace userintent {

// Takes them out of `environment`, which ends with a null pointer, in place: what the C library makes its own later is
// this array. For a program's section .preinit_array, whose functions the loader calls with these three arguments
// before any library's constructor (System V gABI, "Initialization and Termination Functions"; the arguments are
// glibc's). Calls nothing, so that it works before the C library and a sanitizer do. Once for a process.
void CleanEnvironment(int argc, char** argv, char** environment);

enum class RemovedKind { kPrints, kTls, kProxy, kMemory };

// Those of one kind that were taken out: their names, never their values, and why they are not heeded.
struct RemovedVariables {
  RemovedKind kind;
  std::string names;  // separated by ", "; what is no printable ASCII is escaped; the first few
  const char* why;
};

// One for each kind that something was taken out of. Any thread, after CleanEnvironment.
std::vector<RemovedVariables> WhatWasRemoved();

}  // namespace userintent
