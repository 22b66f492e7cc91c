// One row of a table of files that the build put into the program (cmake/embed.cmake).
#pragma once

#include <string_view>

namespace gradflow::app {

struct EmbeddedFile {
  std::string_view name;
  std::string_view bytes;  // the file as it is; a NUL, not counted, follows
};

}  // namespace gradflow::app
