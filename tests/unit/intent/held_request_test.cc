#include "server/intent/held_request.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "server/intent/fields.h"

namespace userintent::intent {
namespace {

// Long enough to lie on the heap, where their bytes can be looked at while the message still owns them.
v1::CreateUserIntentRequest Person() {
  v1::CreateUserIntentRequest request;
  ForEachField([&request](auto row) { row.Mutable(request)->assign(60, 'p'); });
  (*request.mutable_metadata())["key"] = std::string(60, 'm');
  request.set_request_id("6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  request.set_allow_repeat(true);
  return request;
}

TEST(HeldRequest, WhatIsSaidOfAPersonIsOverwritten) {
  v1::CreateUserIntentRequest request = Person();
  std::vector<const char*> places = {request.metadata().at("key").data()};
  ForEachField([&](auto row) { places.push_back(row.Get(request).data()); });
  WipePerson(request);
  for (const char* place : places) EXPECT_TRUE(std::all_of(place, place + 60, [](char c) { return c == '\0'; }));
  ForEachField([&](auto row) { EXPECT_EQ(row.Get(request), ""); });
  EXPECT_EQ(request.metadata().at("key"), "");
  EXPECT_NE(request.request_id(), "") << "an id is nobody's secret";
  WipePerson(request);

  v1::CreateUserIntentRequest empty;
  WipePerson(empty);
  EXPECT_EQ(empty.ByteSizeLong(), 0);
}

TEST(HeldRequest, IsTheSameAfterItWasPacked) {
  HeldRequest held(Person());
  EXPECT_TRUE(held.has_value());
  held.Pack();
  EXPECT_FALSE(held.has_value());
  held.Pack();
  held.Unpack();
  ASSERT_TRUE(held.has_value());
  held.Unpack();
  EXPECT_EQ(held->SerializeAsString(), Person().SerializeAsString());
  EXPECT_EQ((*held).email(), std::string(60, 'p'));
}

}  // namespace
}  // namespace userintent::intent
