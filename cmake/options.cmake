# What a user may choose, and the flags every target of ours is compiled with.
option(GRADFLOW_BUILD_APPS "Build the gradflow program" ${PROJECT_IS_TOP_LEVEL})
option(GRADFLOW_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(GRADFLOW_INSTALL "Write install rules" ${PROJECT_IS_TOP_LEVEL})
set(GRADFLOW_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (if nvcc, cuBLAS are found), ON or OFF")
set(GRADFLOW_CPU_ARCH native CACHE STRING "-march= of the host kernels (native, x86-64-v3, ...); empty: compiler default")
option(GRADFLOW_UNITY "Compile sources in batches: a whole build takes a third of the time, a changed file takes longer" OFF)
set(GRADFLOW_SANITIZE "" CACHE STRING "Sanitizers for all host code, as -fsanitize= takes them (address,undefined)")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

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
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wno-missing-field-initializers>)

if(GRADFLOW_SANITIZE)
  # The first finding ends the program: a test that prints a report and passes would help nobody.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${GRADFLOW_SANITIZE}>
    $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all> $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  # The checks hide from g++ that the standard library's <regex> is initialized.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:$<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>>)
  add_link_options(-fsanitize=${GRADFLOW_SANITIZE})
endif()
