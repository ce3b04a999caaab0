// That the list of the person's fields is the proto's, and that each row gets and changes the field it names.
#include "server/intent/fields.h"

#include <map>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "userintent/v1/options.pb.h"

namespace userintent::intent {
namespace {

using Request = v1::CreateUserIntentRequest;

// A field that is added to the proto must be put on one of the two lists: as a row of fields.h, or here, with the place
// that looks at it.
TEST(Fields, EveryFieldOfTheProtoIsARowOrKnownToBeNone) {
  const std::set<std::string> others = {
      "request_id",             // the key of the ledger
      "verification_type",      // an enum: rules.cc, fingerprint.cc, json.cc each have it by itself
      "metadata",               // a map: the same
      "validate_only",          // usecase
      "allow_repeat",           // usecase
      "supersedes_request_id",  // the ledger
  };
  std::map<int, Field> rows;
  ForEachField([&](auto row) { rows.emplace(row.kField.number, row.kField); });
  EXPECT_EQ(rows.size(), kFieldCount);
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const auto& field = *Request::descriptor()->field(i);
    const auto row = rows.find(field.number());
    EXPECT_NE(row == rows.end(), others.find(std::string(field.name())) == others.end()) << field.name();
    if (row == rows.end()) continue;
    EXPECT_EQ(row->second.name, field.name());
    EXPECT_EQ(field.cpp_type(), field.CPPTYPE_STRING) << field.name();
    EXPECT_FALSE(field.is_repeated()) << field.name();
    EXPECT_TRUE(field.options().GetExtension(v1::personal_data)) << field.name();
    rows.erase(row);
  }
  EXPECT_TRUE(rows.empty()) << "a row without a field";
}

TEST(Fields, EachRowReachesItsOwnField) {
  Request request;
  ForEachField([&](auto row) { *row.Mutable(request) = row.kField.name; });
  size_t bytes = 0;
  ForEachField([&](auto row) {
    EXPECT_EQ(row.Get(request), row.kField.name);
    const auto* field = Request::descriptor()->FindFieldByNumber(row.kField.number);
    ASSERT_NE(field, nullptr);
    EXPECT_EQ(request.GetReflection()->GetString(request, field), row.kField.name);
    bytes += row.kField.name.size();
  });
  EXPECT_EQ(FieldBytes(request), bytes);
}

TEST(Fields, NamesAtAstraAreDistinct) {
  std::set<std::string_view> names;
  ForEachField([&](auto row) { names.insert(row.kField.astra); });
  EXPECT_EQ(names.size(), kFieldCount);
}

}  // namespace
}  // namespace userintent::intent
