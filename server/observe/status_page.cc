#include "server/observe/status_page.h"

#include "absl/strings/str_cat.h"
#include "server/base/text.h"

namespace userintent::observe {
namespace {

constexpr std::string_view kHead =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<title>User Intent gateway</title>\n<style>\n"
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:1em auto;padding:0 1em;color:#222;background:#fff}\n"
    "h1,h2,h3{line-height:1.2;margin:1.2em 0 .3em}h1{font-size:1.5em}h2{font-size:1.2em}h3{font-size:1em}\n"
    "th{text-align:left;font-weight:normal;color:#555;padding-right:2em;vertical-align:top;white-space:nowrap}\n"
    "td,code{unicode-bidi:isolate;overflow-wrap:anywhere}\n"
    "pre{background:#f2f2f2;padding:.5em;overflow-x:auto;white-space:pre-wrap;margin:.2em 0 .6em}\n"
    ".well{border-left:.4em solid #2a7d2a;padding-left:.6em}.ill{border-left:.4em solid #b00020;padding-left:.6em}\n"
    "</style>\n</head>\n<body>\n";

void Append(std::string& html, const std::vector<StatusPage::Row>& rows) {
  if (rows.empty()) return;
  html += "<table>\n";
  for (const StatusPage::Row& row : rows) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", HtmlEscaped(row.name), "</th><td>", HtmlEscaped(row.value),
                    "</td></tr>\n");
  }
  html += "</table>\n";
}

void Append(std::string& html, const StatusPage::Unresolved& one) {
  absl::StrAppend(&html, "<h3><code>", HtmlEscaped(one.request_id), "</code></h3>\n");
  Append(html, one.facts);
  for (const StatusPage::Row& command : one.commands) {
    absl::StrAppend(&html, "<p>", HtmlEscaped(command.name), "</p>\n<pre>", HtmlEscaped(command.value), "</pre>\n");
  }
}

}  // namespace

std::string HtmlEscaped(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += IsControl(c) ? '?' : c;
    }
  }
  return escaped;
}

std::string StatusPage::Html() const {
  std::string html(kHead);
  absl::StrAppend(&html, "<h1>User Intent gateway</h1>\n<p class=\"", well ? "well" : "ill", "\">",
                  HtmlEscaped(headline), "</p>\n");
  for (const Section& section : sections) {
    absl::StrAppend(&html, "<h2>", HtmlEscaped(section.title), "</h2>\n");
    Append(html, section.rows);
  }
  absl::StrAppend(&html, "<h2>Unresolved requests</h2>\n<p>", HtmlEscaped(unresolved_note), "</p>\n");
  for (const Unresolved& one : unresolved) Append(html, one);
  html += "</body>\n</html>\n";
  return html;
}

}  // namespace userintent::observe
