// postgres::Import: another ledger's content becomes the ledger of a database, in one transaction: nothing of it, or
// all.
//
// Blocks; one thread. While the transaction is open no gateway can join the ledger and nobody else copies into it; who
// comes later sees what became of it, also of one whose process is gone and whose commit is still on its way.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/uuid.h"
#include "server/ledger/content.h"
#include "server/postgres/connection.h"
#include "server/postgres/content.h"

namespace userintent::postgres {

class Import {
 public:
  static absl::StatusOr<std::unique_ptr<Import>> Open(const std::string& url);

  // Which database this is: the same after a failover, another one for every other database.
  const std::string& database() const { return database_; }

  // What is there, as of the transaction that this opens.
  struct Found {
    int schema_version = 0;    // 0: no ledger
    bool used = false;         // a gateway was started on it, or it holds something
    std::optional<Uuid> copy;  // the copy that it came from
  };
  absl::StatusOr<Found> Begin();
  void Rollback();

  // Of the next change that is told here; those of the content must be below.
  absl::StatusOr<int64_t> NextRevision();
  // Into an empty ledger.
  absl::Status Write(ledger::Content& from, const Uuid& copy);
  // What is there now, to be compared; and whether each address has the attempts of its rows.
  ledger::Content& content() { return content_; }
  absl::Status CheckCounters();

  // A failure means that nothing is there, unless in_doubt().
  absl::Status Commit() { return connection_->Commit(); }
  bool in_doubt() const { return connection_->in_doubt(); }
  // After a copy was found: returns when everything that can be seen of it is confirmed. Ends the transaction.
  absl::Status Confirm();

 private:
  explicit Import(std::unique_ptr<Connection> connection)
      : connection_(std::move(connection)), content_(*connection_) {}
  absl::Status WriteRows(ledger::Content& from);
  absl::Status WriteAddresses(ledger::Content& from);
  absl::Status WriteRecords(ledger::Content& from);
  absl::Status WriteWebhooks(ledger::Content& from);
  absl::Status WriteLog(ledger::Content& from);
  absl::Status WriteLife(ledger::Content& from, const Uuid& copy);

  const std::unique_ptr<Connection> connection_;
  Content content_;
  std::string database_;
};

}  // namespace userintent::postgres
