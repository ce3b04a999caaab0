// LineFields: the fields of one line of the log about a call or its creation. What has no value is left out. Lives for
// the writing of that line; a text that is given as a string_view must outlive it.
#pragma once

#include <array>
#include <chrono>
#include <string>
#include <string_view>

#include "absl/container/inlined_vector.h"
#include "server/base/loop.h"
#include "server/observe/log.h"
#include "server/usecase/trail.h"

namespace userintent {

inline std::chrono::microseconds MicrosOf(SteadyClock::duration time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time);
}

class LineFields {
 public:
  void Add(const observe::Field& field) { fields_.push_back(field); }
  // A text that is made for the line; at most kTexts of them. Safe to log, as is the other one's.
  void Add(observe::Key key, std::string text);
  void Add(observe::Key key, std::string_view text);
  // What the call did: the attempt's id, how many, and the times.
  void Add(const usecase::Trail& trail);

  void Write(observe::Level level, observe::Event event) const;

 private:
  static constexpr size_t kTexts = 3;

  absl::InlinedVector<observe::Field, 20> fields_;
  std::array<std::string, kTexts> texts_;
  size_t text_count_ = 0;
};

}  // namespace userintent
