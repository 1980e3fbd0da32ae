# The network of a native bundle as a static library, for CMake 3.16 or newer, on a computer or with the toolchain file of
# Android's NDK.
#
#   include(ghost.cmake)
#   ghost_network(ghost_net path/to/bundle)
#   target_link_libraries(app PRIVATE ghost_net)      # brings model.h, and the size of weights.bin to compare with
#
#   GHOST_ARCH      -march of the processor, such as x86-64-v3 or armv8.2-a; without it what the compiler takes by itself
#   GHOST_DOTPROD   ON where every device has NEON's dot product (Cortex-A55 and A75, or newer)
#   GHOST_THREADS   ON for teams of threads, see model.h; without them the library calls nothing of the system

set(GHOST_ARCH "" CACHE STRING "-march of the network's code")
option(GHOST_DOTPROD "arm64: every device has NEON's dot product" OFF)
option(GHOST_THREADS "threads that compute one image together" OFF)

# Flags for what every device of an ABI has, by the promises of the NDK.
function(ghost_flags result)
  set(flags -O3 -ffp-contract=fast -fno-math-errno -fvisibility=hidden)
  if(GHOST_ARCH)
    list(APPEND flags -march=${GHOST_ARCH})
  elseif(ANDROID_ABI STREQUAL "x86_64")
    list(APPEND flags -msse4.2 -mpopcnt)
  elseif(ANDROID_ABI STREQUAL "armeabi-v7a")
    list(APPEND flags -march=armv7-a -mfpu=neon)
  elseif(GHOST_DOTPROD)
    list(APPEND flags -march=armv8.2-a+dotprod)
  endif()
  set(${result} ${flags} PARENT_SCOPE)
endfunction()

function(ghost_network name bundle)
  get_filename_component(bundle ${bundle} ABSOLUTE)
  if(NOT EXISTS ${bundle}/source/model.c OR NOT EXISTS ${bundle}/weights.bin)
    message(FATAL_ERROR "${bundle} has no source/model.c and weights.bin, expected a bundle of: ghostdeploy export -t native")
  endif()
  file(GLOB sources ${bundle}/source/*.c)
  list(REMOVE_ITEM sources ${bundle}/source/main.c)
  if(NOT GHOST_THREADS)
    list(REMOVE_ITEM sources ${bundle}/source/ghost_threads.c)
  endif()
  file(SIZE ${bundle}/weights.bin bytes)
  ghost_flags(flags)
  add_library(${name} STATIC ${sources})
  set_target_properties(${name} PROPERTIES C_STANDARD 11 C_EXTENSIONS ON POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${name} PRIVATE ${flags} -Wall -Wextra)
  target_include_directories(${name} SYSTEM INTERFACE ${bundle}/source)
  target_compile_definitions(${name} INTERFACE GHOST_WEIGHTS_BYTES=${bytes})
  if(GHOST_THREADS)
    find_package(Threads REQUIRED)
    target_link_libraries(${name} PUBLIC Threads::Threads)
  endif()
endfunction()
