#include "apps/xml_check.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace gradflow::app {
namespace {

bool is_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == ':';
}

// Reads forward; every function leaves `at` behind what it read.
struct Reader {
  std::string_view text;
  std::size_t at = 0;

  bool done() const { return at >= text.size(); }
  bool take(std::string_view wanted) {
    if (text.substr(at, wanted.size()) != wanted) return false;
    at += wanted.size();
    return true;
  }
  void spaces() {
    while (!done() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
  }
  std::string_view name() {
    const std::size_t from = at;
    while (!done() && is_name(text[at])) ++at;
    return text.substr(from, at - from);
  }
  std::string near() const { return std::string(text.substr(at, 40)); }
  bool entity() {
    return std::ranges::any_of(
        std::vector<std::string_view>{"&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#39;"},
        [&](std::string_view known) { return take(known); });
  }
  bool attributes() {
    for (spaces(); !done() && is_name(text[at]); spaces()) {
      name();
      if (!take("=\"")) return false;
      while (!done() && text[at] != '"') {
        if (text[at] == '<') return false;
        if (text[at] != '&') {
          ++at;
        } else if (!entity()) {
          return false;
        }
      }
      if (!take("\"")) return false;
    }
    return true;
  }
};

}  // namespace

std::string xml_fault(std::string_view xml) {
  Reader in{xml};
  std::vector<std::string_view> open;
  if (in.take("<?xml ")) in.at = xml.find("?>") + 2;
  while (!in.done()) {
    if (in.take("</")) {
      const std::string_view name = in.name();
      if (open.empty() || open.back() != name || !in.take(">")) return "wrong end tag before: " + in.near();
      open.pop_back();
    } else if (in.take("<")) {
      const std::string_view name = in.name();
      if (name.empty() || !in.attributes()) return "bad tag before: " + in.near();
      if (in.take("/>")) continue;
      if (!in.take(">")) return "tag without end before: " + in.near();
      open.push_back(name);
    } else if (in.text[in.at] == '&') {
      if (!in.entity()) return "bad entity: " + in.near();
    } else {
      const auto c = static_cast<unsigned char>(in.text[in.at++]);
      if (c < 32 && !std::isspace(c)) return "control character before: " + in.near();
    }
  }
  return open.empty() ? "" : "not closed: " + std::string(open.back());
}

}  // namespace gradflow::app
