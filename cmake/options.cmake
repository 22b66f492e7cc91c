# What a user may choose, and the flags every target of ours is compiled with.
option(GRADFLOW_BUILD_APPS "Build the gradflow program" ${PROJECT_IS_TOP_LEVEL})
option(GRADFLOW_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
set(GRADFLOW_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (if nvcc, cuBLAS are found), ON or OFF")
set(GRADFLOW_CPU_ARCH native CACHE STRING "-march= of the host kernels (native, x86-64-v3, ...); empty: compiler default")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(GRADFLOW_CCACHE ccache)
if(GRADFLOW_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GRADFLOW_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${GRADFLOW_CCACHE})
endif()

add_library(gradflow_flags INTERFACE)
target_compile_options(gradflow_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion>)
