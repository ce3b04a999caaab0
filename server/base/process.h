// What a process puts in order for itself before it does anything else. Called by main, before other threads exist.
#pragma once

#include <sys/resource.h>

namespace userintent {

// Descriptors 0 to 2 that are closed are opened on /dev/null: the next file or socket would get such a number, and what
// is printed or logged would go into it. Libraries open descriptors before main begins, so a program says
//
//   USERINTENT_OPEN_STANDARD_DESCRIPTORS;
//
// beside its main, which has this done ahead of all of them. Makes system calls only.
void OpenStandardDescriptors();

// The loader calls what is named in this section of the program before any library's constructor.
#define USERINTENT_OPEN_STANDARD_DESCRIPTORS                                          \
  [[gnu::used, gnu::section(".preinit_array")]] void (*open_standard_descriptors)() = \
      &::userintent::OpenStandardDescriptors

// Every connection needs a descriptor: raises the soft limit to the hard one. The limit that holds afterwards.
rlim_t RaiseDescriptorLimit();

// Signals that would end the process, or stop it, and mean nothing to a server are ignored. Left alone are those that
// the program waits for itself (TERM, INT, HUP, QUIT), those that tell of its own faults (SEGV and its kin), and TSTP.
void IgnoreStraySignals();

}  // namespace userintent
