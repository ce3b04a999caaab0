// The page of /status as text: whatever it is given, it stays a page that loads and runs nothing.
#include "server/observe/status_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace userintent::observe {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(StatusPageTest, EveryTextIsEscaped) {
  EXPECT_EQ(HtmlEscaped(R"(<a href="x" id='y'>&amp;</a>)"),
            "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;amp;&lt;/a&gt;");
  EXPECT_EQ(HtmlEscaped(std::string("a\0b\x1b[2J\x7f\n", 9)), "a?b?[2J??");
  EXPECT_EQ(HtmlEscaped("J\xc3\xbcrgen"), "J\xc3\xbcrgen");
  EXPECT_EQ(HtmlEscaped(""), "");

  const std::string evil = "<script>alert(1)</script>\"'><img src=//example.com/x>";
  StatusPage page;
  page.headline = evil;
  page.sections = {{evil, {{evil, evil}}}};
  page.unresolved_note = evil;
  page.unresolved = {{evil, {{evil, evil}}, {{evil, evil}}}};
  const std::string html = page.Html();
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("alert(1)</script>")));
  size_t escaped = 0;
  for (size_t at = 0; (at = html.find("&lt;script&gt;", at)) != std::string::npos; ++at) ++escaped;
  EXPECT_EQ(escaped, 10U) << "a text is missing";
}

TEST(StatusPageTest, NothingIsLoadedAndNothingCanBeSent) {
  StatusPage page;
  page.sections = {{"Ledger", {{"requests", "7"}}}};
  const std::string html = page.Html();
  EXPECT_THAT(html, testing::StartsWith("<!DOCTYPE html>\n"));
  EXPECT_THAT(html, testing::EndsWith("</html>\n"));
  EXPECT_THAT(html, HasSubstr("<meta charset=\"utf-8\">"));
  EXPECT_THAT(html, HasSubstr("<tr><th scope=\"row\">requests</th><td>7</td></tr>"));
  for (const char* word :
       {"script", "<form", "<a ", "<link", "<iframe", "src=", "href=", "url(", "@import", "onload"}) {
    EXPECT_THAT(html, Not(HasSubstr(word))) << word;
  }
}

TEST(StatusPageTest, WellAndIll) {
  StatusPage page;
  page.headline = "Ready.";
  EXPECT_THAT(page.Html(), HasSubstr("<p class=\"well\">Ready.</p>"));
  page.well = false;
  page.headline = "Not ready: it drains.";
  EXPECT_THAT(page.Html(), HasSubstr("<p class=\"ill\">Not ready: it drains.</p>"));
}

TEST(StatusPageTest, CommandsStandAsTheyAreToBePasted) {
  StatusPage page;
  for (int i = 0; i < 100; ++i) {
    page.unresolved.push_back({"id-" + std::to_string(i), {{"age", "3m 4s"}}, {{"If:", "tool --x=\"${Y:?z}\""}}});
  }
  const std::string html = page.Html();
  EXPECT_THAT(html, HasSubstr("<h3><code>id-0</code></h3>"));
  EXPECT_THAT(html, HasSubstr("<h3><code>id-99</code></h3>"));
  EXPECT_THAT(html, HasSubstr("<pre>tool --x=&quot;${Y:?z}&quot;</pre>"));
}

}  // namespace
}  // namespace userintent::observe
