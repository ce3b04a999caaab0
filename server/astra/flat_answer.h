// FlatAnswer: the members of a body that is a flat JSON object, as Astra's answer to a creation is, found in one pass.
//
// Flat is: at most kMostBytes that are one object of at most kMostMembers members, none of them twice. Names and texts
// are printable ASCII without a backslash, and values are texts, true, false or null. A text is then written as what it
// means, so members point into the body: nothing is copied or allocated, and nothing stays behind to be wiped.
//
// Whatever else a body is, JSON or not, it is not flat, and ParseAnswer(), who calls this, asks the full parser. Pure;
// any thread. The body must outlive the object.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace userintent::astra {

class FlatAnswer {
 public:
  static constexpr size_t kMostBytes = 4096;  // what is looked at in vain where the body turns out not to be flat
  static constexpr size_t kMostMembers = 16;

  explicit FlatAnswer(std::string_view body);

  // Without it there are no members.
  bool flat() const { return flat_; }

  // Nothing: there is no such member, or it is true, false or null.
  std::optional<std::string_view> Text(std::string_view name) const;
  size_t size() const { return size_; }

 private:
  struct Member {
    std::string_view name;
    std::optional<std::string_view> text;
  };
  const Member* Find(std::string_view name) const;
  // Each returns whether the body may still be flat.
  bool Add(const Member& member);
  bool Read(std::string_view body);

  std::array<Member, kMostMembers> members_;
  size_t size_ = 0;
  bool flat_ = false;
};

}  // namespace userintent::astra
