// A small check that a text is well-formed XML, as far as our own writers go: no DTD, no CDATA, no processing
// instructions but the declaration.
#pragma once

#include <string>
#include <string_view>

namespace gradflow::app {

// What is wrong, or "": tags nest and end, attributes are quoted, & begins a known entity.
std::string xml_fault(std::string_view xml);

}  // namespace gradflow::app
