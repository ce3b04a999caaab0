# What first-party code is compiled with. Kept in one INTERFACE target, so that packages are not warned about.
add_library(ui_first_party INTERFACE)
target_include_directories(ui_first_party INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(ui_first_party INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Werror
  -fstack-protector-strong -fPIE)
if(NOT USERINTENT_SANITIZE)
  target_compile_options(ui_first_party INTERFACE $<$<CONFIG:Release,RelWithDebInfo>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3>)
  target_link_options(ui_first_party INTERFACE -pie -Wl,-z,relro,-z,now,--as-needed)
else()
  target_compile_options(ui_first_party INTERFACE -fsanitize=${USERINTENT_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  # GCC loses sight of what it instruments, and then takes an empty std::optional for one that is read.
  target_compile_options(ui_first_party INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  # Abseil's flags hold a fence, which ThreadSanitizer does not follow; GCC says so wherever one is inlined. And protobuf's
  # map fields have one member more where the compiler says that it instruments, which Debian's library does not know; the
  # standard library must know it all the same.
  if(USERINTENT_SANITIZE MATCHES thread)
    target_compile_options(ui_first_party INTERFACE -Wno-tsan -U__SANITIZE_THREAD__ -D_GLIBCXX_TSAN=1)
  endif()
  target_link_options(ui_first_party INTERFACE -fsanitize=${USERINTENT_SANITIZE})
endif()
if(USERINTENT_FUZZ)  # what libFuzzer learns from which branches an input took
  target_compile_options(ui_first_party INTERFACE -fsanitize=fuzzer-no-link)
endif()

# ui_library(NAME sources... [LINK libraries...])
function(ui_library name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PUBLIC ui_first_party ${arg_LINK})
endfunction()

# ui_executable(NAME sources... [LINK libraries...])
function(ui_executable name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ui_first_party ${arg_LINK})
endfunction()

# ui_unit_test(NAME sources... [LINK libraries...]): one gtest program, one ctest entry
function(ui_unit_test name)
  ui_executable(${name} ${ARGN} LINK GTest::gmock_main)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600 LABELS unit)
endfunction()
