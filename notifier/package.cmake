# SPDX-License-Identifier: LGPL-2.1-or-later
# libgnomon-notifier as others link it: one shared and one static library, with libgnomon-sync
# inside, and no names but those of the public headers (docs/library.md). The rest of the tree goes
# on to use gnomon-sync and gnomon-notifier, whose private names it needs.

set(notifier_headers ${CMAKE_CURRENT_SOURCE_DIR}/include)
set(package_dir ${PROJECT_BINARY_DIR}/lib)
# Before 1.0 each minor version may break the one before.
set(package_abi ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

# The objects of both: position-independent, so that the static one fits into plugins, too.
get_target_property(sync_sources gnomon-sync SOURCES)
get_target_property(notifier_sources gnomon-notifier SOURCES)
add_library(gnomon-notifier-objects OBJECT ${sync_sources} ${notifier_sources})
target_include_directories(gnomon-notifier-objects PRIVATE ${notifier_headers})
set_target_properties(gnomon-notifier-objects PROPERTIES
  POSITION_INDEPENDENT_CODE ON
  C_VISIBILITY_PRESET hidden)
# A section for each function: a program that links statically can leave out what it does not use.
# No LTO: objects of one compiler's intermediate code are of no use to others, nor to ld -r.
target_compile_options(gnomon-notifier-objects PRIVATE -ffunction-sections -fno-lto)

# --- shared
configure_file(gnomon-notifier.map.in gnomon-notifier.map @ONLY)
add_library(gnomon-notifier-shared SHARED $<TARGET_OBJECTS:gnomon-notifier-objects>)
set_target_properties(gnomon-notifier-shared PROPERTIES
  OUTPUT_NAME gnomon-notifier
  EXPORT_NAME notifier
  LIBRARY_OUTPUT_DIRECTORY ${package_dir}
  LINKER_LANGUAGE C
  VERSION ${PROJECT_VERSION}
  SOVERSION ${package_abi}
  LINK_DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier.map)
target_include_directories(gnomon-notifier-shared INTERFACE
  $<BUILD_INTERFACE:${notifier_headers}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(gnomon-notifier-shared PRIVATE Threads::Threads)
# Functions, not data: readers in a program that is not PIC have a copy of __srcu_waiting, and the
# library must store to that one. Never unloaded: threads would end in a destructor that is gone.
target_link_options(gnomon-notifier-shared PRIVATE
  LINKER:--version-script=${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier.map
  LINKER:-Bsymbolic-functions LINKER:-z,defs LINKER:-z,nodelete)

# --- static: an archive of one object, as only within one object can a name be made local
set(package_object ${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier.o)
add_custom_command(OUTPUT ${package_object}
  COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o ${package_object}.tmp
    $<TARGET_OBJECTS:gnomon-notifier-objects>
  COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${package_object}.tmp ${package_object}
  COMMAND ${CMAKE_COMMAND} -E rm ${package_object}.tmp
  DEPENDS gnomon-notifier-objects $<TARGET_OBJECTS:gnomon-notifier-objects>
  COMMENT "Hiding the private names of libgnomon-notifier.a"
  COMMAND_EXPAND_LISTS VERBATIM)
add_library(gnomon-notifier-static STATIC ${package_object})
set_target_properties(gnomon-notifier-static PROPERTIES
  OUTPUT_NAME gnomon-notifier
  EXPORT_NAME notifier_static
  ARCHIVE_OUTPUT_DIRECTORY ${package_dir}
  LINKER_LANGUAGE C)
target_include_directories(gnomon-notifier-static INTERFACE
  $<BUILD_INTERFACE:${notifier_headers}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(gnomon-notifier-static INTERFACE Threads::Threads)

# --- pkg-config: found from where the file itself lies, so that a prefix can be moved
foreach(dir INCLUDEDIR LIBDIR)
  string(TOLOWER ${dir} name)
  set(pc_${name} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(pc_${name} "${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
set(pc_prefix "${CMAKE_INSTALL_PREFIX}")
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  file(RELATIVE_PATH pc_prefix "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
  string(REGEX REPLACE "/$" "" pc_prefix "\${pcfiledir}/${pc_prefix}")
endif()
configure_file(gnomon-notifier.pc.in gnomon-notifier.pc @ONLY)

# --- find_package()
include(CMakePackageConfigHelpers)
set(package_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gnomon-notifier)
configure_package_config_file(gnomon-notifier-config.cmake.in gnomon-notifier-config.cmake
  INSTALL_DESTINATION ${package_cmake_dir})
write_basic_package_version_file(gnomon-notifier-config-version.cmake
  COMPATIBILITY SameMinorVersion)

install(TARGETS gnomon-notifier-shared gnomon-notifier-static EXPORT gnomon-notifier)
install(DIRECTORY ${notifier_headers}/gnomon DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gnomon-notifier NAMESPACE gnomon:: FILE gnomon-notifier-targets.cmake
  DESTINATION ${package_cmake_dir})
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier-config-version.cmake
  DESTINATION ${package_cmake_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gnomon-notifier.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# --- manual pages: each name that one has is a page, too, which leads there
file(GLOB man_pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/*.3)
install(FILES ${man_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${man_pages})
set(man_links)
foreach(page IN LISTS man_pages)
  cmake_path(GET page FILENAME target)
  file(STRINGS ${page} names REGEX "^\\.Nm [A-Za-z0-9_]+( ,)?$")
  foreach(name IN LISTS names)
    string(REGEX REPLACE "^\\.Nm ([A-Za-z0-9_]+).*" "\\1.3" name "${name}")
    if(NOT name STREQUAL target)
      file(CONFIGURE OUTPUT man3/${name} CONTENT ".so man3/${target}\n")
      list(APPEND man_links ${CMAKE_CURRENT_BINARY_DIR}/man3/${name})
    endif()
  endforeach()
endforeach()
install(FILES ${man_links} DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
