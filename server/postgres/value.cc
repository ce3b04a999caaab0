#include "server/postgres/value.h"

#include <arpa/inet.h>
#include <libpq-fe.h>

#include <cstdlib>
#include <cstring>
#include <limits>

namespace userintent::postgres {
namespace {

// Types of PostgreSQL by their fixed numbers.
constexpr Oid kBool = 16, kBytea = 17, kInt8 = 20, kText = 25, kUuid = 2950;
constexpr Oid kByteaArray = 1001, kTextArray = 1009, kInt8Array = 1016, kUuidArray = 2951;

void AppendInt32(std::string& out, uint32_t value) {
  const uint32_t wire = htonl(value);
  out.append(reinterpret_cast<const char*>(&wire), sizeof wire);
}

void AppendInt64(std::string& out, int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  AppendInt32(out, static_cast<uint32_t>(bits >> 32));
  AppendInt32(out, static_cast<uint32_t>(bits));
}

std::string Wire(int64_t value) {
  std::string out;
  AppendInt64(out, value);
  return out;
}

template <size_t N>
std::string_view View(const std::array<uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

}  // namespace

// ---- values ----

// The binary form of an array of one dimension.
class ArrayWriter {
 public:
  ArrayWriter(Value& value, Oid element, size_t size) : out_(value.bytes_) {
    out_.reserve(20 + size * 20);
    AppendInt32(out_, size == 0 ? 0 : 1);
    AppendInt32(out_, 1);  // NULLs are possible
    AppendInt32(out_, element);
    if (size == 0) return;
    AppendInt32(out_, static_cast<uint32_t>(size));
    AppendInt32(out_, 1);
  }
  void Add(std::string_view bytes) {
    AppendInt32(out_, static_cast<uint32_t>(bytes.size()));
    out_.append(bytes);
  }
  void Add(int64_t number) {
    AppendInt32(out_, sizeof number);
    AppendInt64(out_, number);
  }
  void AddNull() { AppendInt32(out_, std::numeric_limits<uint32_t>::max()); }

 private:
  std::string& out_;
};

Value::Value(bool value) : type_(kBool), bytes_(1, value ? '\1' : '\0') {}
Value::Value(int64_t value) : type_(kInt8), bytes_(Wire(value)) {}
Value::Value(std::string_view text) : type_(kText), bytes_(text) {}
Value::Value(const Uuid& id) : type_(kUuid), bytes_(View(id)) {}
Value::Value(const ledger::Digest& digest) : type_(kBytea), bytes_(View(digest)) {}
Value::Value(const std::vector<std::string>& texts) : type_(kTextArray) {
  ArrayWriter writer(*this, kText, texts.size());
  for (const std::string& text : texts) writer.Add(text);
}
Value::Value(const std::vector<int64_t>& numbers) : type_(kInt8Array) {
  ArrayWriter writer(*this, kInt8, numbers.size());
  for (const int64_t number : numbers) writer.Add(number);
}
Value::Value(const std::vector<Uuid>& ids) : type_(kUuidArray) {
  ArrayWriter writer(*this, kUuid, ids.size());
  for (const Uuid& id : ids) writer.Add(View(id));
}
Value::Value(const std::vector<ledger::Digest>& digests) : type_(kByteaArray) {
  ArrayWriter writer(*this, kBytea, digests.size());
  for (const ledger::Digest& digest : digests) writer.Add(View(digest));
}
Value::Value(const std::vector<std::optional<Uuid>>& ids) : type_(kUuidArray) {
  ArrayWriter writer(*this, kUuid, ids.size());
  for (const std::optional<Uuid>& id : ids) id ? writer.Add(View(*id)) : writer.AddNull();
}
Value::Value(const std::vector<std::optional<int64_t>>& numbers) : type_(kInt8Array) {
  ArrayWriter writer(*this, kInt8, numbers.size());
  for (const std::optional<int64_t>& number : numbers) number ? writer.Add(*number) : writer.AddNull();
}
Value::Value(const std::vector<std::optional<std::string>>& texts) : type_(kTextArray) {
  ArrayWriter writer(*this, kText, texts.size());
  for (const std::optional<std::string>& text : texts) text ? writer.Add(*text) : writer.AddNull();
}

// ---- answers ----

void Rows::Deleter::operator()(pg_result* result) const { PQclear(result); }

int Rows::size() const { return PQntuples(result_.get()); }

bool Rows::IsNull(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }

std::string_view Rows::Bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column), static_cast<size_t>(PQgetlength(result_.get(), row, column))};
}

int64_t Rows::Number(int row, int column) const {
  const std::string_view bytes = Bytes(row, column);
  if (bytes.empty() || bytes.size() > 8) return 0;
  // Of 2, 4 or 8 bytes, with a sign; booleans have one byte.
  uint64_t bits = bytes.size() > 1 && (static_cast<uint8_t>(bytes[0]) & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (const char byte : bytes) bits = bits << 8 | static_cast<uint8_t>(byte);
  return static_cast<int64_t>(bits);
}

std::string Rows::Text(int row, int column) const { return std::string(Bytes(row, column)); }

Uuid Rows::Id(int row, int column) const {
  Uuid id{};
  const std::string_view bytes = Bytes(row, column);
  if (bytes.size() == id.size()) std::memcpy(id.data(), bytes.data(), id.size());
  return id;
}

std::optional<Uuid> Rows::OptionalId(int row, int column) const {
  if (IsNull(row, column)) return std::nullopt;
  return Id(row, column);
}

ledger::Digest Rows::DigestAt(int row, int column) const {
  ledger::Digest digest{};
  const std::string_view bytes = Bytes(row, column);
  if (bytes.size() == digest.size()) std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

absl::Time Rows::Time(int row, int column) const {
  return IsNull(row, column) ? absl::InfinitePast() : absl::FromUnixMicros(Number(row, column));
}

std::string_view Rows::tag() const { return PQcmdStatus(result_.get()); }

int64_t Rows::touched() const {
  const char* const text = PQcmdTuples(result_.get());
  return std::strtoll(text, nullptr, 10);
}

}  // namespace userintent::postgres
