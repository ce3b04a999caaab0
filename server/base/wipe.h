// wipe: bytes that held a secret or a person's data are overwritten before their memory is used for something else.
//
// The compiler cannot leave these writes out, as it may with std::memset(). Functions may be called from any thread;
// a WipedBuffer belongs to one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace userintent {

void WipeBytes(void* bytes, size_t size);

// All of the string's capacity, since bytes of an earlier, longer content may lie behind its end. Empty afterwards.
void Wipe(std::string& text);

// Only the bytes in use: for a string that is filled and emptied again and again, and whose end never lies behind bytes
// of an earlier content. Empty afterwards, with the same capacity.
void WipeUsed(std::string& text);

// Bytes that are wiped when they go. Holds at most the capacity it was made with: growing would leave a copy in the
// heap, so a longer content ends the process.
class WipedBuffer {
 public:
  explicit WipedBuffer(size_t capacity) { bytes_.reserve(capacity); }
  ~WipedBuffer() { WipeBytes(bytes_.data(), bytes_.size()); }
  WipedBuffer(const WipedBuffer&) = delete;
  WipedBuffer& operator=(const WipedBuffer&) = delete;

  void Append(std::string_view bytes) {
    if (bytes.size() > bytes_.capacity() - bytes_.size()) Overflow();
    bytes_.append(bytes);
  }
  char* data() { return bytes_.data(); }
  size_t size() const { return bytes_.size(); }
  std::string_view view() const { return bytes_; }

 private:
  [[noreturn]] static void Overflow();

  std::string bytes_;
};

}  // namespace userintent
