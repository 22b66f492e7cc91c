# gradflow_embed(<target> <function> [<name> <file>]...)
#
# Puts files into <target> as they are, and defines
#
#     std::span<const gradflow::app::EmbeddedFile> gradflow::app::<function>();
#
# which lists them by name and is declared by whoever calls it. The assembler copies the bytes (.incbin):
# no converter program, no limit on literals, no measurable build time. A changed file rebuilds the one
# object that holds it.
function(gradflow_embed target function)
  set(blobs "")
  set(rows "")
  set(files "")
  set(index 0)
  set(pairs ${ARGN})
  while(pairs)
    list(POP_FRONT pairs name file)
    get_filename_component(file "${file}" REALPATH)
    list(APPEND files "${file}")
    set(symbol "gradflow_${function}_${index}")
    string(APPEND blobs
      "asm(R\"(.pushsection .rodata,\"a\"\n"
      "${symbol}_begin: .incbin \"${file}\"\n"
      "${symbol}_end: .byte 0\n"
      ".popsection)\");\n"
      "extern const char ${symbol}_begin[] asm(\"${symbol}_begin\");\n"
      "extern const char ${symbol}_end[] asm(\"${symbol}_end\");\n\n")
    string(APPEND rows
      "      {\"${name}\", {${symbol}_begin, static_cast<std::size_t>(${symbol}_end - ${symbol}_begin)}},\n")
    math(EXPR index "${index} + 1")
  endwhile()
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${target}_${function}.cpp")
  file(CONFIGURE OUTPUT "${source}" @ONLY CONTENT [[
// Written by gradflow_embed (cmake/embed.cmake); changes here are lost.
#include <array>
#include <cstddef>
#include <span>

#include "apps/report/embedded_file.h"

@blobs@namespace gradflow::app {

std::span<const EmbeddedFile> @function@() {
  static const std::array<EmbeddedFile, @index@> files{{
@rows@  }};
  return files;
}

}  // namespace gradflow::app
]])
  set_source_files_properties("${source}" PROPERTIES OBJECT_DEPENDS "${files}")
  target_sources(${target} PRIVATE "${source}")
endfunction()
