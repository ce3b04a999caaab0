// The first steps of a process. Called by the mains of the server and of the tool, before other threads exist.
#pragma once

#include <sys/resource.h>

namespace userintent {

// Opens /dev/null in place of those of the descriptors 0 to 2 that are closed: the next file or socket would get such a
// number, and the log would go into it. Libraries open descriptors before main begins, so a program names this
// function in its section .preinit_array, whose functions the loader calls before any library's constructor. Makes
// system calls only.
void OpenStandardDescriptors();

// Raises the soft limit of descriptors to the hard one, since every connection takes one. Returns the limit that holds
// then.
rlim_t RaiseDescriptorLimit();

// Ignores the signals that would end or stop the process and mean nothing to a server. It leaves alone the ones that
// the program waits for (TERM, INT, HUP, QUIT), those of its own faults (SEGV, ABRT and the like), and TSTP.
void IgnoreStraySignals();

}  // namespace userintent
