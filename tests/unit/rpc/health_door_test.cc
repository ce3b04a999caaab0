#include "server/rpc/health_door.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "absl/strings/str_cat.h"

namespace userintent::rpc {
namespace {

using std::chrono::seconds;

// Names are of the whole machine, and tests of several trees may run at once.
std::string Address(const char* test) { return absl::StrCat("127.0.0.1:", test, "-", getpid()); }

TEST(HealthDoor, TellsWhatTheServerSaysOfItself) {
  std::atomic<bool> serving{true};
  const auto door = HealthDoor::Open(
      Address("state"), [&] { return std::string(serving ? HealthDoor::kServing : "the ledger cannot be written"); });
  ASSERT_TRUE(door.ok());
  EXPECT_TRUE(HealthDoor::Ask(Address("state"), seconds(20)).ok());
  serving = false;
  const absl::Status status = HealthDoor::Ask(Address("state"), seconds(20));
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_EQ(status.message(), "the server is not serving: the ledger cannot be written");
}

TEST(HealthDoor, WithoutAServerThereIsNoDoor) {
  EXPECT_TRUE(absl::IsNotFound(HealthDoor::Ask(Address("nobody"), seconds(20))));
  (void)HealthDoor::Open(Address("gone"), [] { return std::string(HealthDoor::kServing); });
  EXPECT_TRUE(absl::IsNotFound(HealthDoor::Ask(Address("gone"), seconds(20))));
}

TEST(HealthDoor, OneNameIsOneServers) {
  const auto one = HealthDoor::Open(Address("one"), [] { return std::string(HealthDoor::kServing); });
  ASSERT_TRUE(one.ok());
  EXPECT_FALSE(HealthDoor::Open(Address("one"), [] { return std::string("not this one"); }).ok());
  EXPECT_TRUE(HealthDoor::Ask(Address("one"), seconds(20)).ok());
}

}  // namespace
}  // namespace userintent::rpc
