# Everything comes from Debian packages or the CUDA toolkit; nothing is downloaded here.
list(PREPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)  # whoever adds this folder to a project links these, too
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(DNNL 2.6 REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
if(GRADFLOW_BUILD_APPS)
  find_package(CLI11 REQUIRED)
  # The minified bundle that also runs without a module loader: Chart.js 3 (Debian 12), then 4.
  find_file(GRADFLOW_CHART_JS NAMES chart.min.js chart.umd.js REQUIRED
    PATHS /usr/share/javascript/chart.js /usr/share/nodejs/chart.js/dist
    DOC "Chart.js (package libjs-chart.js), put into the program for its report")
endif()
