# One packaging test: cmake -DMODE=<install|find_package|moved_tree|pkg_config|add_subdirectory> ... -P run.cmake
# Every step must succeed, and the consumer must say that it worked.
cmake_minimum_required(VERSION 3.25)
set(prefix ${WORK}/prefix)
set(consumer ${SOURCE}/tests/packaging/consumer)

# Objects of another build folder may be reused although their debug information names that folder.
set(ENV{CCACHE_NOHASHDIR} 1)

function(step)
  list(JOIN ARGN " " shown)
  message(STATUS "${shown}")
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(run_consumer program)
  message(STATUS "${program}")
  execute_process(COMMAND ${program} OUTPUT_VARIABLE output ECHO_OUTPUT_VARIABLE COMMAND_ERROR_IS_FATAL ANY)
  if(NOT output MATCHES "consumer: ok")
    message(FATAL_ERROR "the consumer did not print \"consumer: ok\"")
  endif()
endfunction()

# build_consumer(<tree> <argument>...): configures, builds and runs the consumer in ${WORK}/<tree>
function(build_consumer tree)
  file(REMOVE_RECURSE ${WORK}/${tree})
  step(${CMAKE_COMMAND} -S ${consumer} -B ${WORK}/${tree} -G ${GENERATOR}
    -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
    "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=${RELWITHDEBINFO_FLAGS}" ${ARGN})
  step(${CMAKE_COMMAND} --build ${WORK}/${tree} --target consumer)
  run_consumer(${WORK}/${tree}/consumer)
endfunction()

if(MODE STREQUAL install)
  file(REMOVE_RECURSE ${prefix})
  step(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
  file(GLOB_RECURSE installed RELATIVE ${prefix} ${prefix}/*)
  foreach(expected include/gradflow/kernels/backend.h include/gradflow/engine/version.h
      ${LIBDIR}/libgradflow_kernels.a ${LIBDIR}/libgradflow_engine.a ${LIBDIR}/libgradflow_layers.a
      ${LIBDIR}/cmake/gradflow/gradflowConfig.cmake ${LIBDIR}/pkgconfig/gradflow.pc bin/gradflow)
    if(NOT expected IN_LIST installed)
      message(FATAL_ERROR "not installed: ${expected}; installed: ${installed}")
    endif()
  endforeach()
  # Nothing installed may point back to where it was built or first installed.
  foreach(file ${installed})
    if(file MATCHES "\\.(cmake|pc|h)$")
      file(READ ${prefix}/${file} text)
      foreach(path ${SOURCE} ${BUILD} ${prefix})
        string(FIND "${text}" "${path}/" at)
        if(NOT at EQUAL -1)
          message(FATAL_ERROR "${file} names ${path}")
        endif()
      endforeach()
    endif()
  endforeach()
elseif(MODE STREQUAL find_package)
  build_consumer(find_package -Dgradflow_ROOT=${prefix})
elseif(MODE STREQUAL moved_tree)
  set(moved "${WORK}/moved tree")
  file(REMOVE_RECURSE ${moved})
  file(COPY ${prefix}/ DESTINATION ${moved})
  step(${moved}/bin/gradflow --version)
  build_consumer(moved_consumer "-Dgradflow_ROOT=${moved}")
elseif(MODE STREQUAL pkg_config)
  set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
  execute_process(COMMAND ${PKG_CONFIG} --cflags --libs gradflow
    OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  file(REMOVE_RECURSE ${WORK}/pkg_config)
  file(MAKE_DIRECTORY ${WORK}/pkg_config)
  step(${CXX} -std=c++20 ${consumer}/main.cpp -o ${WORK}/pkg_config/consumer ${flags})
  run_consumer(${WORK}/pkg_config/consumer)
elseif(MODE STREQUAL add_subdirectory)
  build_consumer(add_subdirectory -DGRADFLOW_SOURCE=${SOURCE} -DGRADFLOW_CUDA=OFF -DGRADFLOW_UNITY=ON -DGRADFLOW_CPU_ARCH=${CPU_ARCH})
else()
  message(FATAL_ERROR "unknown MODE '${MODE}'")
endif()
