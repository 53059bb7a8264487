# Builds the sources as they are with a plain C++ compiler: check/shim stands
# for the headers of AscendC and of the runtime, and ends the program with a
# message when a rule of the device is broken.

# Launches are the one thing that plain C++ cannot parse: k<<<...>>>(...).
file(READ "${PTO_WSP_SOURCE_DIR}/host/launch.asc" PTO_WSP_LAUNCH)
string(REGEX REPLACE "([A-Za-z_][A-Za-z0-9_:]*)<<<([^;>]*)>>>[ \n]*\\("
                     "::pto_shim::Chevrons(\\1, \\2)(" PTO_WSP_LAUNCH
                     "${PTO_WSP_LAUNCH}")
file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/launch.cpp.new" "${PTO_WSP_LAUNCH}")
configure_file("${CMAKE_CURRENT_BINARY_DIR}/launch.cpp.new"
               "${CMAKE_CURRENT_BINARY_DIR}/launch.cpp" COPYONLY)
set_property(
  DIRECTORY
  APPEND
  PROPERTY CMAKE_CONFIGURE_DEPENDS "${PTO_WSP_SOURCE_DIR}/host/launch.asc")

target_sources(
  pto_wsp_npu_host PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/launch.cpp"
                           "${PTO_WSP_SOURCE_DIR}/check/machine.cpp")
set_source_files_properties(
  "${PTO_WSP_SOURCE_DIR}/aicore/worker.asc"
  "${PTO_WSP_SOURCE_DIR}/aicpu/expand.aicpu"
  PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
target_include_directories(pto_wsp_npu_host
                           PRIVATE "${PTO_WSP_SOURCE_DIR}/check/shim")
target_compile_definitions(pto_wsp_npu_host PRIVATE PTO_SHIM_SEPARATE)
target_compile_options(pto_wsp_npu_host PRIVATE -Wall -Wextra)
target_link_libraries(pto_wsp_npu_host PRIVATE ${CMAKE_DL_LIBS})
