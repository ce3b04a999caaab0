#include "server/astra/flat_answer.h"

#include <algorithm>

#include "server/base/text.h"

namespace userintent::astra {
namespace {

// Whether it stands for itself inside a JSON string.
constexpr bool IsPlain(char c) { return IsPrintable(c) && c != '"' && c != '\\'; }

// What is left of the body. Each Take returns whether it stood there, and then it is gone.
class Left {
 public:
  explicit Left(std::string_view body) : bytes_(body) {}

  bool empty() const { return bytes_.empty(); }

  void SkipSpace() {
    while (!empty() && (bytes_[0] == ' ' || bytes_[0] == '\t' || bytes_[0] == '\n' || bytes_[0] == '\r')) {
      bytes_.remove_prefix(1);
    }
  }

  // With white space around it.
  bool Take(char c) {
    SkipSpace();
    if (empty() || bytes_[0] != c) return false;
    bytes_.remove_prefix(1);
    SkipSpace();
    return true;
  }

  bool TakeText(std::string_view& text) {
    if (empty() || bytes_[0] != '"') return false;
    size_t end = 1;
    while (end < bytes_.size() && IsPlain(bytes_[end])) ++end;
    if (end == bytes_.size() || bytes_[end] != '"') return false;
    text = bytes_.substr(1, end - 1);
    bytes_.remove_prefix(end + 1);
    return true;
  }

  // What follows the word is the caller's to look at: it goes on with a comma or the end of the object only.
  bool TakeConstant() {
    for (const std::string_view word : {"null", "true", "false"}) {
      if (!bytes_.starts_with(word)) continue;
      bytes_.remove_prefix(word.size());
      return true;
    }
    return false;
  }

 private:
  std::string_view bytes_;
};

}  // namespace

FlatAnswer::FlatAnswer(std::string_view body) : flat_(body.size() <= kMostBytes && Read(body)) {
  if (!flat_) size_ = 0;
}

std::optional<std::string_view> FlatAnswer::Text(std::string_view name) const {
  const Member* const member = Find(name);
  return member == nullptr ? std::nullopt : member->text;
}

const FlatAnswer::Member* FlatAnswer::Find(std::string_view name) const {
  const auto* const end = members_.data() + size_;
  const auto* const found =
      std::find_if(members_.data(), end, [&](const Member& member) { return member.name == name; });
  return found == end ? nullptr : found;
}

// Which of two members of one name holds is not for this file to say.
bool FlatAnswer::Add(const Member& member) {
  if (size_ == kMostMembers || Find(member.name) != nullptr) return false;
  members_[size_++] = member;
  return true;
}

bool FlatAnswer::Read(std::string_view body) {
  Left left(body);
  if (!left.Take('{')) return false;
  if (left.Take('}')) return left.empty();
  do {
    Member member;
    if (!left.TakeText(member.name) || !left.Take(':')) return false;
    if (std::string_view text; left.TakeText(text)) {
      member.text = text;
    } else if (!left.TakeConstant()) {
      return false;
    }
    if (!Add(member)) return false;
  } while (left.Take(','));
  return left.Take('}') && left.empty();
}

}  // namespace userintent::astra
