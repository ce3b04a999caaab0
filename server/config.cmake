# The settings of the server. Included by server/CMakeLists.txt.
ui_library(ui_config ${CMAKE_SOURCE_DIR}/server/config.cc
  LINK ui_astra ui_base ui_intent_rules ui_ledger ui_observe absl::flags absl::flags_reflection absl::status absl::statusor absl::strings absl::time
       OpenSSL::Crypto)
target_compile_definitions(ui_config PRIVATE USERINTENT_VERSION="${PROJECT_VERSION}")
