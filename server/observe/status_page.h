// StatusPage: what /status shows, and how it becomes HTML: a page for people, in a terminal's browser too. No script,
// no image, no link, no form: nothing on it loads or changes anything.
//
// Plain values, made and rendered on one thread; app/status.h fills it. Every text is escaped, whatever it holds; that
// it holds no personal data is for those who fill it to see to.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace userintent::observe {

struct StatusPage {
  struct Row {
    std::string name;
    std::string value;
  };
  struct Section {
    std::string title;
    std::vector<Row> rows;
  };
  // A request whose outcome nobody knows.
  struct Unresolved {
    std::string request_id;
    std::vector<Row> facts;
    std::vector<Row> commands;  // to paste, by what each says
  };

  bool well = true;
  std::string headline;
  std::vector<Section> sections;
  std::string unresolved_note;         // how many there are, and how old the list is
  std::vector<Unresolved> unresolved;  // the oldest first

  std::string Html() const;
};

// As the text of an element, or between the quotes of an attribute. Control characters become a question mark.
std::string HtmlEscaped(std::string_view text);

}  // namespace userintent::observe
