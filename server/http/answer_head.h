// AnswerHead: reads the heads of one HTTP/2 answer, field by field, and says what is wrong with them.
//
// It stands in for nghttp2's own check (RFC 9113 section 8), which knows malformed and well-formed only. Every answer
// that is called malformed may cost a person an id, so what cannot change how the answer is read is ignored here; what
// can (the status, where fields and bodies begin and end) makes it malformed, and the fault has a name. Values lose the
// blanks around them, as in HTTP/1.1. Holds no field itself; belongs to its exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace userintent::http {

class AnswerHead {
 public:
  enum class Field {
    kTake,       // of a final head: `value` is what counts
    kSkip,       // well-formed, and nothing to us: a pseudo-header field, or of an interim head or a trailer
    kIgnore,     // against RFC 9113, and harmless: to be counted
    kMalformed,  // see fault()
  };

  void Begin();  // a HEADERS frame, its CONTINUATION frames included
  Field Read(std::string_view name, std::string_view* value);
  // Each of these returns false when the answer turns out malformed.
  bool EndHead(bool end_stream);
  bool ReadBody(size_t bytes);
  bool EndBody();  // the peer has ended the stream

  bool done() const { return done_; }     // a final head is whole: what follows is the body, then trailers
  int status() const { return status_; }  // of the head that is being read, or that was read last; 0: none yet
  std::string_view fault() const { return fault_; }  // fixed text, empty: none

 private:
  Field Fault(std::string_view what);
  Field ReadPseudo(std::string_view name, std::string_view value);
  bool ReadStatus(std::string_view value);
  bool ReadLength(std::string_view value);

  bool done_ = false;
  bool regular_ = false;  // a field that is no pseudo-header field has come in this head
  int status_ = 0;
  int64_t length_ = -1;  // of the body, as announced; -1: not announced
  uint64_t received_ = 0;
  std::string_view fault_;
};

}  // namespace userintent::http
