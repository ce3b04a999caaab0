// The URL of --ledger, checked without a connection. Pure but for a look at the password file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace userintent::postgres {

// Whether libpq understands it, and it keeps a secret: no password in it (a process's arguments can be read), a
// password file that nobody else can read, and sslmode=verify-full unless every host is a Unix socket. The error is one
// line without any part of the URL.
absl::Status CheckUrl(const std::string& url);

// What libpq is given, by keyword.
using Parameters = std::map<std::string, std::string>;

// For each server that the URL names, in their order, what it says with that server alone; at least one.
std::vector<Parameters> ServersOf(const std::string& url);

// Host, port and database, for logs and messages; never user or password.
std::string PlaceOf(const std::string& url);

}  // namespace userintent::postgres
