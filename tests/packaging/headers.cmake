# Every public header compiles alone; and includes are checked: nothing that an installed gradflow does not bring,
# nothing from a layer above.
file(GLOB_RECURSE headers CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/kernels/include/*.h
  ${PROJECT_SOURCE_DIR}/engine/include/*.h
  ${PROJECT_SOURCE_DIR}/layers/include/*.h)

set(sources "")
foreach(header ${headers})
  string(REGEX REPLACE ".*/include/" "" name ${header})
  string(MAKE_C_IDENTIFIER ${name} identifier)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${identifier}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${name}\"\n#include \"${name}\"\n")
  list(APPEND sources ${source})
endforeach()
add_library(public_headers OBJECT ${sources})
set_target_properties(public_headers PROPERTIES UNITY_BUILD OFF)  # each must stand alone
target_link_libraries(public_headers PRIVATE gradflow_flags)
target_include_directories(public_headers PRIVATE
  ${PROJECT_SOURCE_DIR}/kernels/include ${PROJECT_SOURCE_DIR}/engine/include ${PROJECT_SOURCE_DIR}/layers/include)

add_test(NAME packaging.includes
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -P ${CMAKE_CURRENT_LIST_DIR}/check_includes.cmake)
set_tests_properties(packaging.includes PROPERTIES LABELS packaging)
