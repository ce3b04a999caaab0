// Each change of a watched file is read once and told once; a refused one leaves the last good content in use.
#include "server/app/file_reloader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "server/app/telemetry.h"
#include "server/astra/credentials.h"
#include "tests/unit/base/temporary_directory.h"

namespace userintent {
namespace {

using testing::HasSubstr;
using testing::Not;

class FileReloaderTest : public testing::Test {
 protected:
  FileReloaderTest() {
    auto loaded = astra::Credentials::Load(directory_.Write("id", "client-id"), directory_.Write("secret", "first"));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    credentials_ = *std::move(loaded);
    reloader_ = std::make_unique<FileReloader>(metrics_);
    reloader_->Watch(*credentials_, "credentials_reloaded", "credentials_not_reloaded");
  }

  std::string Auth() const { return std::string(credentials_->Snapshot()->header_value.Reveal()); }

  // Lines with this event.
  size_t Told(const std::string& event) const {
    size_t n = 0;
    for (const std::string& line : log_.Lines()) n += absl::StrContains(line, "\"event\":\"" + event + "\"") ? 1 : 0;
    return n;
  }

  double Reloads(const std::string& result) const {
    const std::string name = "userintent_credential_reloads_total{result=\"" + result + "\"} ";
    const std::string text = metrics_.Text();
    const size_t at = text.find(name);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + name.size()));
  }

  TemporaryDirectory directory_;
  observe::ScopedLogCapture log_;
  observe::Metrics metrics_{{"1", "1", "1", "1"}, Telemetry::Labels()};
  std::unique_ptr<astra::Credentials> credentials_;
  std::unique_ptr<FileReloader> reloader_;
};

TEST_F(FileReloaderTest, AChangeIsReadAndToldOnce) {
  const std::string before = Auth();
  reloader_->ReloadNow();
  EXPECT_EQ(Told("credentials_reloaded"), 0u);
  directory_.Write("secret", "second");
  reloader_->ReloadNow();
  reloader_->ReloadNow();
  EXPECT_NE(Auth(), before);
  EXPECT_EQ(Told("credentials_reloaded"), 1u);
  EXPECT_EQ(Reloads("ok"), 1);
  EXPECT_EQ(Reloads("failed"), 0);
}

TEST_F(FileReloaderTest, ARefusedFileIsToldOncePerChangeAndTheLastGoodOneStays) {
  const std::string before = Auth();
  directory_.Write("secret", "CANARY\nCANARY\n");
  for (int i = 0; i < 3; ++i) reloader_->ReloadNow();
  EXPECT_EQ(Told("credentials_not_reloaded"), 1u);
  directory_.Write("secret", "CANARY\nCANARY again\n");
  for (int i = 0; i < 3; ++i) reloader_->ReloadNow();
  EXPECT_EQ(Told("credentials_not_reloaded"), 2u);
  EXPECT_EQ(Reloads("failed"), 6);
  EXPECT_EQ(Auth(), before);
  for (const std::string& line : log_.Lines()) {
    EXPECT_THAT(line, HasSubstr("--astra_client_secret_file: "));
    EXPECT_THAT(line, Not(HasSubstr("CANARY")));
  }
}

TEST_F(FileReloaderTest, APollWaitsForItsTime) {
  const std::string before = Auth();
  const SteadyTime start = SteadyClock::now();
  directory_.Write("secret", "second");
  reloader_->Poll(start - std::chrono::hours(1));
  EXPECT_EQ(Auth(), before);
  reloader_->Poll(start + std::chrono::seconds(2));
  const std::string second = Auth();
  EXPECT_NE(second, before);
  directory_.Write("secret", "third");
  reloader_->Poll(start + std::chrono::seconds(3));
  EXPECT_EQ(Auth(), second);
  reloader_->Poll(start + std::chrono::seconds(4));
  EXPECT_NE(Auth(), second);
}

}  // namespace
}  // namespace userintent
