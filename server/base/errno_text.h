// ErrnoText: what an error number of the system means, in English whatever the locale. Any thread, unlike strerror().
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

namespace userintent {

inline std::string ErrnoText(int number = errno) { return std::generic_category().message(number); }

}  // namespace userintent
