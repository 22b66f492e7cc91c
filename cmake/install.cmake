# `cmake --install`: program, static libraries, headers, the CUDA module if it was built, and what
# find_package(gradflow) and pkg-config need.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gradflow)

set_target_properties(gradflow_kernels PROPERTIES EXPORT_NAME kernels)
set_target_properties(gradflow_engine PROPERTIES EXPORT_NAME engine)
set_target_properties(gradflow_layers PROPERTIES EXPORT_NAME layers)
set_target_properties(gradflow_all PROPERTIES EXPORT_NAME gradflow)
install(TARGETS gradflow_kernels gradflow_engine gradflow_layers gradflow_all EXPORT gradflowTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gradflowTargets NAMESPACE gradflow:: DESTINATION ${package_dir})

foreach(layer kernels engine layers)
  install(DIRECTORY ${layer}/include/gradflow DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
endforeach()
if(TARGET gradflow)
  install(TARGETS gradflow RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(TARGET gradflow_cuda)  # opened by path, never linked
  install(TARGETS gradflow_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(cmake/gradflowConfig.cmake.in ${PROJECT_BINARY_DIR}/gradflowConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gradflowConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gradflowConfig.cmake ${PROJECT_BINARY_DIR}/gradflowConfigVersion.cmake
  cmake/FindDNNL.cmake DESTINATION ${package_dir})

# Relative to the .pc file, so that an installed tree may be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/gradflow.pc.in ${PROJECT_BINARY_DIR}/gradflow.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/gradflow.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
