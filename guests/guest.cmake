# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How a guest is built: freestanding, by rules of its own. CMake's targets would hand it the flags of
# the preset (sanitizers, coverage, hardening), and none of those can work in there.
#
#   gnomon_guest(NAME SOURCE [LINK_FLAGS FLAG...])
#
# compiles SOURCE, links it with guests/lib to NAME.elf in the current binary directory, and makes the
# target guest-NAME, part of "all".

set(GNOMON_GUEST_CFLAGS
  -std=gnu11 -O2 -Wall -Wextra
  -ffreestanding -fno-pic -fno-pie # linked where it says, never relocated
  -mno-red-zone -mgeneral-regs-only # the loader sets up no SSE
  -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables
  -ffunction-sections -fdata-sections # small images: what is not called is not there
)
set(GNOMON_GUEST_LDFLAGS
  -nostdlib -static
  -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack
)
set(GNOMON_GUEST_LIB_SOURCES start.S console.c mem.c paging.c report.c)
set(GNOMON_GUEST_LIB_DIR ${PROJECT_SOURCE_DIR}/guests/lib)
set(GNOMON_GUEST_LDSCRIPT ${GNOMON_GUEST_LIB_DIR}/guest.ld)

# One source to one object, made anew when a header that it includes changes.
function(gnomon_guest_object source object)
  file(RELATIVE_PATH comment ${PROJECT_BINARY_DIR} ${object})
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER} ${GNOMON_GUEST_CFLAGS} -I${PROJECT_SOURCE_DIR}
            -MD -MQ ${object} -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "Building guest object ${comment}"
    VERBATIM)
endfunction()

# The objects of guests/lib; called once, by guests/CMakeLists.txt.
function(gnomon_guest_lib)
  set(objects)
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/lib)
  foreach(source IN LISTS GNOMON_GUEST_LIB_SOURCES)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/lib/${source}.o)
    gnomon_guest_object(${GNOMON_GUEST_LIB_DIR}/${source} ${object})
    list(APPEND objects ${object})
  endforeach()
  add_custom_target(guest-lib DEPENDS ${objects})
  set_property(TARGET guest-lib PROPERTY GUEST_OBJECTS ${objects})
endfunction()

function(gnomon_guest name source)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "LINK_FLAGS")
  get_filename_component(source ${source} ABSOLUTE)
  get_target_property(lib_objects guest-lib GUEST_OBJECTS)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(elf ${CMAKE_CURRENT_BINARY_DIR}/${name}.elf)
  file(RELATIVE_PATH comment ${PROJECT_BINARY_DIR} ${elf})

  gnomon_guest_object(${source} ${object})
  add_custom_command(
    OUTPUT ${elf}
    COMMAND ${CMAKE_C_COMPILER} ${GNOMON_GUEST_LDFLAGS} ${arg_LINK_FLAGS}
            -Wl,-T,${GNOMON_GUEST_LDSCRIPT} ${lib_objects} ${object} -o ${elf}
    DEPENDS ${object} ${lib_objects} ${GNOMON_GUEST_LDSCRIPT} guest-lib
    COMMENT "Linking guest ${comment}"
    VERBATIM)
  add_custom_target(guest-${name} ALL DEPENDS ${elf})
endfunction()
