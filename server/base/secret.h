// Secret: bytes that must not be printed, and that are wiped when the last copy goes.
//
// Has no stream operator and no implicit conversion, so that a secret cannot slip into a log line. Not thread-safe as
// an object; distinct copies may be used from distinct threads.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace userintent {

class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string bytes) : bytes_(std::move(bytes)) {}
  Secret(const Secret&) = default;
  Secret& operator=(const Secret& other);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  ~Secret() { Wipe(); }

  // The bytes, for the one place that needs them.
  std::string_view Reveal() const { return bytes_; }
  bool empty() const { return bytes_.empty(); }

  friend bool operator==(const Secret& a, const Secret& b);  // in constant time for equal sizes

 private:
  void Wipe();
  std::string bytes_;
};

}  // namespace userintent
