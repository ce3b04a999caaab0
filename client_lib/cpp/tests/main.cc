#include <cstdlib>

#include "gmock/gmock.h"

int main(int argc, char** argv) {
  // Without the timer that polls connections now and then, what the client itself does about polling is all there is.
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "600000", 1);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
