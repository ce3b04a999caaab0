// Values on their way to PostgreSQL and back, in its binary form. No statement and no connection here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/base/uuid.h"
#include "server/ledger/ledger.h"

struct pg_result;

namespace userintent::postgres {

// A value of a statement: NULL, a scalar or an array of scalars.
class Value {
 public:
  Value(bool value);                                                 // NOLINT(google-explicit-constructor)
  Value(int value) : Value(static_cast<int64_t>(value)) {}           // NOLINT(google-explicit-constructor)
  Value(int64_t value);                                              // NOLINT(google-explicit-constructor)
  Value(size_t value) : Value(static_cast<int64_t>(value)) {}        // NOLINT(google-explicit-constructor)
  Value(std::string_view text);                                      // NOLINT(google-explicit-constructor)
  Value(const std::string& text) : Value(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  Value(const char* text) : Value(std::string_view(text)) {}         // NOLINT(google-explicit-constructor)
  Value(const Uuid& id);                                             // NOLINT(google-explicit-constructor)
  Value(const ledger::Digest& digest);                               // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::string>& texts);                      // NOLINT(google-explicit-constructor)
  Value(const std::vector<int64_t>& numbers);                        // NOLINT(google-explicit-constructor)
  Value(const std::vector<Uuid>& ids);                               // NOLINT(google-explicit-constructor)
  Value(const std::vector<ledger::Digest>& digests);                 // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<Uuid>>& ids);                // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<int64_t>>& numbers);         // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<std::string>>& texts);       // NOLINT(google-explicit-constructor)

  unsigned type() const { return type_; }
  bool is_null() const { return null_; }
  const std::string& bytes() const { return bytes_; }

 private:
  friend class ArrayWriter;
  explicit Value(unsigned type) : type_(type) {}
  unsigned type_;
  bool null_ = false;
  std::string bytes_;
};

// The answer to one statement. Columns are read as what they are: a wrong type or place is a bug, and reads as zero or
// empty. Booleans and integers of any width are numbers.
class Rows {
 public:
  explicit Rows(pg_result* result) : result_(result) {}
  int size() const;
  bool IsNull(int row, int column) const;
  int64_t Number(int row, int column) const;
  int Int(int row, int column) const { return static_cast<int>(Number(row, column)); }
  bool Bool(int row, int column) const { return Number(row, column) != 0; }
  std::string Text(int row, int column) const;
  Uuid Id(int row, int column) const;
  std::optional<Uuid> OptionalId(int row, int column) const;
  ledger::Digest DigestAt(int row, int column) const;
  absl::Time Time(int row, int column) const;  // of microseconds since 1970; NULL: InfinitePast
  // Rows that an INSERT, UPDATE or DELETE touched.
  int64_t touched() const;
  std::string_view tag() const;

 private:
  std::string_view Bytes(int row, int column) const;
  struct Deleter {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Deleter> result_;
};

}  // namespace userintent::postgres
