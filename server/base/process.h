// What a process puts in order for itself before it does anything else. Called by main, before other threads exist.
#pragma once

#include <sys/resource.h>

namespace userintent {

// Descriptors 0 to 2 that are closed are opened on /dev/null: the next file or socket would get such a number, and what
// is printed or logged would go into it. Libraries open descriptors before main begins, so a program names this
// function in its section .preinit_array, whose functions the loader calls before any library's constructor. Makes
// system calls only.
void OpenStandardDescriptors();

// Every connection needs a descriptor: raises the soft limit to the hard one. The limit that holds afterwards.
rlim_t RaiseDescriptorLimit();

// Signals that would end the process, or stop it, and mean nothing to a server are ignored. Left alone are those that
// the program waits for itself (TERM, INT, HUP, QUIT), those that tell of its own faults (SEGV and its kin), and TSTP.
void IgnoreStraySignals();

}  // namespace userintent
