// http: one HTTP request with a JSON body and a JSON answer, for the runner's steps. Throws std::runtime_error for
// everything but 2xx.
//
// Any thread may call this after curl_global_init.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

nlohmann::json Http(const std::string& method, const std::string& url, const nlohmann::json& body = {});

// For the value of a query parameter.
std::string Escaped(const std::string& text);
