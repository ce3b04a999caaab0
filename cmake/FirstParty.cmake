# How everything here is compiled and linked that a caller's bytes reach, generated code included. Checked on the programs by
# tests/e2e/test_hardening.py. Sanitizers come in place of some of it.
add_library(ui_hardened INTERFACE)
target_compile_options(ui_hardened INTERFACE -fstack-protector-strong -fPIE)
if(NOT USERINTENT_SANITIZE)
  # A variable that is read before it is written holds zeros, and not what another caller left on the stack.
  set(optimized $<CONFIG:Release,RelWithDebInfo>,$<NOT:$<BOOL:$<TARGET_PROPERTY:UI_COMPILED_FAST>>>)
  target_compile_options(ui_hardened INTERFACE -ftrivial-auto-var-init=zero -fstack-clash-protection
    $<$<AND:${optimized}>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3>)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    # Jumps land on marked places only. Nothing enforces it yet: Debian's C runtime is not marked, so the linker does not
    # mark the program either.
    target_compile_options(ui_hardened INTERFACE -fcf-protection=full)
  endif()
  target_link_options(ui_hardened INTERFACE -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed)
endif()

# What first-party code is compiled with. Kept in one INTERFACE target, so that packages are not warned about.
add_library(ui_first_party INTERFACE)
target_link_libraries(ui_first_party INTERFACE ui_hardened)
target_include_directories(ui_first_party INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(ui_first_party INTERFACE -Wall -Wextra -Wconversion -Werror)
if(USERINTENT_SANITIZE)
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
# What libFuzzer learns from which branches an input took. Warnings are errors for GCC; those that clang alone has are
# shown here, and are no reason to leave a fuzz target out.
if(USERINTENT_FUZZ)
  target_compile_options(ui_first_party INTERFACE -fsanitize=fuzzer-no-link -Wno-error)
endif()

# ui_library(NAME sources... [LINK libraries...]). With USERINTENT_UNITY a dozen of its sources are compiled at a time, as if
# they were one file; so a name at the level of a file is used once in a library, anonymous namespace or not.
function(ui_library name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_library(${name} STATIC ${arg_UNPARSED_ARGUMENTS})
  set_target_properties(${name} PROPERTIES UNITY_BUILD "${USERINTENT_UNITY}" UNITY_BUILD_BATCH_SIZE 12)
  target_link_libraries(${name} PUBLIC ui_first_party ${arg_LINK})
  if(NOT USERINTENT_UNITY)  # where a local may have the name of another file's constant
    target_compile_options(${name} PRIVATE -Wshadow)
  endif()
endfunction()

# ui_executable(NAME sources... [LINK libraries...])
function(ui_executable name)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ui_first_party ${arg_LINK})
  target_compile_options(${name} PRIVATE -Wshadow)
endfunction()

# ui_unit_test(NAME sources... [OPTIMIZED] [LINK libraries...]): one gtest program, one ctest entry. What reads the same
# headers belongs into one program, as long as that does not take minutes: with USERINTENT_UNITY its sources are compiled at
# once, like a library's. The tests themselves are not optimized, which halves the time that the compiler takes for them; what
# they test is. OPTIMIZED: one that counts in millions.
function(ui_unit_test name)
  cmake_parse_arguments(arg "OPTIMIZED" "" "LINK" ${ARGN})
  ui_executable(${name} ${arg_UNPARSED_ARGUMENTS} LINK ${arg_LINK} GTest::gmock_main)
  set_target_properties(${name} PROPERTIES UNITY_BUILD "${USERINTENT_UNITY}" UNITY_BUILD_BATCH_SIZE 12)
  if(NOT arg_OPTIMIZED AND NOT USERINTENT_SANITIZE)
    set_target_properties(${name} PROPERTIES UI_COMPILED_FAST ON)
    target_compile_options(${name} PRIVATE -O0 -U_FORTIFY_SOURCE)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 1200 LABELS unit)
  if(NOT TARGET unit-tests)
    add_custom_target(unit-tests)
  endif()
  add_dependencies(unit-tests ${name})
endfunction()
