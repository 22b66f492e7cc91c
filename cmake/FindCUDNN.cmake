# cuDNN as CUDNN::cudnn: its headers and the one library that opens the others. CMake has no module of its own.
# Looked for beside the CUDA toolkit first, where the archive is usually unpacked.
find_path(CUDNN_INCLUDE_DIR cudnn.h
  HINTS ${CUDNN_ROOT} ENV CUDNN_ROOT ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY cudnn
  HINTS ${CUDNN_ROOT} ENV CUDNN_ROOT ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT} PATH_SUFFIXES lib lib64)
set(CUDNN_VERSION "")
if(CUDNN_INCLUDE_DIR)
  foreach(header cudnn_version.h cudnn_version_v9.h)
    if(NOT CUDNN_VERSION AND EXISTS ${CUDNN_INCLUDE_DIR}/${header})
      file(STRINGS ${CUDNN_INCLUDE_DIR}/${header} lines REGEX "#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) +[0-9]+")
      list(TRANSFORM lines REPLACE ".* ([0-9]+)$" "\\1")
      list(JOIN lines "." CUDNN_VERSION)
    endif()
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR VERSION_VAR CUDNN_VERSION)
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY)

if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  add_library(CUDNN::cudnn UNKNOWN IMPORTED GLOBAL)
  set_target_properties(CUDNN::cudnn PROPERTIES
    IMPORTED_LOCATION ${CUDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
