# oneDNN as DNNL::dnnl. Debian's own dnnl-config.cmake asks for OpenCL's headers and loader, which only
# oneDNN's GPU side needs and its package does not bring; the host library alone is what is used here.
find_path(DNNL_INCLUDE_DIR dnnl.hpp)
find_library(DNNL_LIBRARY dnnl)
set(DNNL_VERSION "")
if(DNNL_INCLUDE_DIR)
  # 2.6 keeps its version in dnnl_version.h, 3.x in oneapi/dnnl/; either way as three #defines.
  foreach(header dnnl_version.h oneapi/dnnl/dnnl_version.h)
    if(EXISTS ${DNNL_INCLUDE_DIR}/${header})
      file(STRINGS ${DNNL_INCLUDE_DIR}/${header} lines REGEX "#define DNNL_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
      list(TRANSFORM lines REPLACE ".* ([0-9]+)$" "\\1")
      if(lines)
        list(JOIN lines "." DNNL_VERSION)
      endif()
    endif()
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(DNNL REQUIRED_VARS DNNL_LIBRARY DNNL_INCLUDE_DIR VERSION_VAR DNNL_VERSION)
mark_as_advanced(DNNL_INCLUDE_DIR DNNL_LIBRARY)

if(DNNL_FOUND AND NOT TARGET DNNL::dnnl)
  add_library(DNNL::dnnl UNKNOWN IMPORTED GLOBAL)
  set_target_properties(DNNL::dnnl PROPERTIES
    IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
endif()
