# gradflow_revision(<target> <file>): <file>, one of <target>'s sources, may include
# "gradflow_revision.inc", which defines GRADFLOW_REVISION; and is compiled with GRADFLOW_VERSION and
# GRADFLOW_BUILD_SUMMARY. The revision is looked up at every build, so it never needs a new configure
# run, and the file is rewritten only when it changed, so nothing is compiled for nothing.
#
# The same file is the script that looks it up: cmake -DSOURCE=... -DOUTPUT=... -P revision.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  set(revision unknown)
  find_program(git git)
  if(git)
    # No optional locks: a build must not disturb a commit made at the same time.
    set(ENV{GIT_OPTIONAL_LOCKS} 0)
    execute_process(COMMAND ${git} rev-parse --show-toplevel WORKING_DIRECTORY ${SOURCE}
      OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    # An unpacked archive inside somebody else's checkout has no revision of its own.
    if(top STREQUAL SOURCE)
      execute_process(COMMAND ${git} describe --always --dirty --exclude=* --abbrev=12
        WORKING_DIRECTORY ${SOURCE} RESULT_VARIABLE failed
        OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
      if(NOT failed AND described)
        set(revision ${described})
      endif()
    endif()
  endif()
  file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#define GRADFLOW_REVISION \"${revision}\"\n")
  return()
endif()

set(GRADFLOW_REVISION_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

function(gradflow_revision target file)
  set(directory ${CMAKE_CURRENT_BINARY_DIR}/revision)
  file(REAL_PATH ${PROJECT_SOURCE_DIR} source)
  add_custom_target(${target}_revision
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${source} -DOUTPUT=${directory}/gradflow_revision.inc
            -P ${GRADFLOW_REVISION_SCRIPT}
    BYPRODUCTS ${directory}/gradflow_revision.inc
    COMMENT "" VERBATIM)
  add_dependencies(${target} ${target}_revision)

  set(summary "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
  string(APPEND summary ", $<IF:$<BOOL:$<CONFIG>>,$<CONFIG>,no build type>")
  if(GRADFLOW_CPU_ARCH)
    string(APPEND summary ", -march=${GRADFLOW_CPU_ARCH}")
  else()
    string(APPEND summary ", default instruction set")
  endif()
  if(GRADFLOW_SANITIZE)
    string(APPEND summary ", sanitizers ${GRADFLOW_SANITIZE}")
  endif()
  string(APPEND summary ", $<IF:$<TARGET_EXISTS:gradflow_cuda>,with,without> CUDA module")
  set_source_files_properties(${file} PROPERTIES
    INCLUDE_DIRECTORIES ${directory}
    COMPILE_DEFINITIONS "GRADFLOW_VERSION=\"${PROJECT_VERSION}\";GRADFLOW_BUILD_SUMMARY=\"${summary}\"")
endfunction()
