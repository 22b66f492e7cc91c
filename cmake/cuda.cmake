# Decides whether the CUDA module is built and prepares the CUDA language for it.
#
# Sets GRADFLOW_CUDA_FOUND. GRADFLOW_CUDA = ON makes an incomplete toolkit an error, AUTO a status line.
# Run in the directory that holds the CUDA targets: enable_language() is local to it.
set(GRADFLOW_CUDA_FOUND FALSE)
set(reason "")

if(NOT GRADFLOW_CUDA)
  set(reason "GRADFLOW_CUDA is off")
else()
  # nvcc is often installed without being in PATH.
  find_program(GRADFLOW_NVCC nvcc
    HINTS ${CUDAToolkit_ROOT}/bin ENV CUDAToolkit_ROOT ENV CUDA_HOME ENV CUDA_PATH
    PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT GRADFLOW_NVCC)
    set(reason "no nvcc in PATH, CUDA_HOME or /usr/local/cuda")
  endif()
endif()

if(NOT reason)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90 CACHE STRING "CUDA architectures; 90 gives code for Hopper, and PTX for newer ones")
  endif()
  # check_language() tries the compiler in a project of its own, so a broken one is no error yet.
  include(CheckLanguage)
  if(NOT DEFINED ENV{CUDACXX})
    set(ENV{CUDACXX} ${GRADFLOW_NVCC})
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(reason "${GRADFLOW_NVCC} does not work with the host compiler")
  endif()
endif()

if(NOT reason)
  enable_language(CUDA)
  # CMake learnt that nvcc has C++20 in 3.25.2. Tell older ones the flag and the feature's name.
  if(CMAKE_VERSION VERSION_LESS 3.25.2 AND CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA"
     AND NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    foreach(kind STANDARD EXTENSION)
      set(CMAKE_CUDA20_${kind}_COMPILE_OPTION "-std=c++20")
    endforeach()
    set(CMAKE_CUDA20_COMPILE_FEATURES cuda_std_20)
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
  endif()
  find_package(CUDAToolkit)
  set(missing "")
  foreach(library cudart_static cublas nvtx3)
    if(NOT TARGET CUDA::${library})
      list(APPEND missing ${library})
    endif()
  endforeach()
  if(missing)
    list(JOIN missing ", " missing)
    set(reason "the CUDA toolkit lacks ${missing}")
  endif()
endif()

if(NOT reason)
  set(GRADFLOW_CUDA_FOUND TRUE)
  message(STATUS "CUDA module: CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
elseif(GRADFLOW_CUDA STREQUAL "AUTO" OR NOT GRADFLOW_CUDA)
  message(STATUS "CUDA module: not built, ${reason}")
else()
  message(FATAL_ERROR "GRADFLOW_CUDA=${GRADFLOW_CUDA}, but ${reason}. Install the CUDA toolkit, point CUDA_HOME to it, "
                      "or configure with -DGRADFLOW_CUDA=OFF.")
endif()
