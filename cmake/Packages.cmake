# Every package, found once. Debian 12 and 13 both have them; docs/dependencies.md says why each is here.
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(CURL REQUIRED)
find_package(ICU REQUIRED COMPONENTS uc)
find_package(PkgConfig REQUIRED)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd)
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls)
find_package(absl CONFIG REQUIRED)
# Before gRPC's own config. Newer protobufs bring a config, which the module of CMake cannot be mixed with; Debian's 3.21
# has none.
find_package(Protobuf CONFIG QUIET)
if(NOT TARGET protobuf::libprotobuf)
  find_package(Protobuf MODULE REQUIRED)
endif()
# What gRPC from 1.66 on writes its log with (server/rpc/grpc_log.cc); older Abseils have no log.
set(ABSL_LOG_LIBRARIES)
foreach(library log_entry log_globals log_initialize log_sink log_sink_registry)
  if(TARGET absl::${library})
    list(APPEND ABSL_LOG_LIBRARIES absl::${library})
  endif()
endforeach()
# Before gRPC, whose own search goes through pkg-config, which takes minutes over RE2 and Abseil on Debian 13.
find_library(RE2_LIBRARY re2 REQUIRED)
if(NOT TARGET re2::re2)
  add_library(re2::re2 UNKNOWN IMPORTED)
  set_target_properties(re2::re2 PROPERTIES IMPORTED_LOCATION ${RE2_LIBRARY})
endif()
set(re2_FOUND TRUE)
find_package(gRPC CONFIG REQUIRED)
# Newer ones serve grpc.reflection.v1 themselves; a second copy of its messages in the process would end it at the start.
find_library(GRPC_REFLECTION_LIBRARY grpc++_reflection REQUIRED)
file(STRINGS ${GRPC_REFLECTION_LIBRARY} GRPC_REFLECTION_V1 REGEX "grpc\\.reflection\\.v1\\.ServerReflection" LIMIT_COUNT 1)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(PostgreSQL REQUIRED)
if(USERINTENT_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()

# google/rpc/*.proto: Debian 13 has a package; elsewhere scripts/deps.sh puts the PyPI package under build/tools.
find_path(GOOGLEAPIS_PROTO_DIR google/rpc/error_details.proto
  HINTS ${CMAKE_SOURCE_DIR}/build/tools/googleapis
  PATHS /usr/lib/python3/dist-packages NO_DEFAULT_PATH)
if(NOT GOOGLEAPIS_PROTO_DIR)
  message(FATAL_ERROR "google/rpc/error_details.proto is missing. Run `make deps`, or install "
    "python3-googleapis-common-protos (Debian 13), or set GOOGLEAPIS_PROTO_DIR.")
endif()
