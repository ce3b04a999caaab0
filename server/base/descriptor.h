// Descriptor: an open file descriptor that is closed with its owner.
#pragma once

#include <unistd.h>

#include <utility>

namespace userintent {

class Descriptor {
 public:
  // Takes the descriptor over; a negative one, as failed calls return it, is none.
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  // The caller closes the descriptor.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace userintent
