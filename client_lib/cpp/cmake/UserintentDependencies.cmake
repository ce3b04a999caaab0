# What the library is made of, found as Debian 12 and 13 package it. Used by the library's own build and, installed, by
# find_package(userintent). USERINTENT_FIND is find_package there, and find_dependency here.
macro(userintent_find)
  if(COMMAND find_dependency)
    find_dependency(${ARGV})
  else()
    find_package(${ARGV} REQUIRED)
  endif()
endmacro()

userintent_find(Threads)
userintent_find(OpenSSL)
userintent_find(absl CONFIG)
# Before gRPC's own config. Newer protobufs bring a config, which the module of CMake cannot be mixed with; Debian's 3.21
# has none.
find_package(Protobuf CONFIG QUIET)
if(NOT TARGET protobuf::libprotobuf)
  userintent_find(Protobuf MODULE)
endif()
# Before gRPC, whose own search goes through pkg-config, which takes minutes over RE2 and Abseil on Debian 13.
if(NOT TARGET re2::re2)
  find_library(RE2_LIBRARY re2)
  if(RE2_LIBRARY)
    add_library(re2::re2 UNKNOWN IMPORTED)
    set_target_properties(re2::re2 PROPERTIES IMPORTED_LOCATION ${RE2_LIBRARY})
    set(re2_FOUND TRUE)
  endif()
endif()
userintent_find(gRPC CONFIG)
