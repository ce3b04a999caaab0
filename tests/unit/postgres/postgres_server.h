// A real PostgreSQL for unit tests: one server a program, started when it is asked for first, in a temporary directory,
// reached by a Unix socket only, and gone when the program has ended, however that was. As root it runs as the user
// postgres. fsync is on.
//
// One thread. Programs: PG_BIN_DIR, or the newest of /usr/lib/postgresql/*/bin from version 14 on.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <memory>
#include <string>

#include "server/postgres/connection.h"

namespace userintent::postgres {

class PostgresServer {
 public:
  // Why there can be none; empty: there can.
  static const std::string& Missing();
  // Only where nothing is missing. Ends the program where the server does not start.
  static PostgresServer& Get();

  // A fresh database with the ledger's schema; its URL. Of the server's superuser.
  std::string NewDatabase();
  // One without any schema.
  std::string NewEmptyDatabase();
  // To that database; a failure ends the program.
  static std::unique_ptr<Connection> Connect(const std::string& url);

  const std::string& directory() const { return directory_; }

 private:
  PostgresServer();
  ~PostgresServer();
  std::string Url(const std::string& database) const;
  std::string Create(const std::string& options);

  std::string directory_;  // holds the socket, the data and the log
  pid_t process_ = -1;
  int databases_ = 0;
};

// The base of tests that need a server: where there can be none they fail, or, with USERINTENT_NO_POSTGRES=1, say that
// they are skipped.
class PostgresTest : public testing::Test {
 protected:
  void SetUp() override;
};

}  // namespace userintent::postgres
