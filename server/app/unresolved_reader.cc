#include "server/app/unresolved_reader.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/postgres/inspector.h"

namespace userintent {
namespace {

// With one answer of the database. A process that ends waits no longer for the page's reading.
constexpr absl::Duration kDatabasePatience = absl::Seconds(2);

// As an operator's shell may be given it; the URL of a database may hold its password.
std::string LedgerForTool(const config::Settings& settings) {
  if (settings.ledger.kind != config::LedgerLocation::Kind::kSqlite) return "";
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(settings.ledger.path, error);
  return absl::StrCat("sqlite:", error ? settings.ledger.path : path.string());
}

}  // namespace

std::unique_ptr<UnresolvedReader> UnresolvedReader::Of(const config::Settings& settings,
                                                       ledger::OperatorAccess* sqlite) {
  const admin::UnresolvedOptions options{LedgerForTool(settings), settings.late_answer_window};
  if (sqlite != nullptr) {
    return std::make_unique<UnresolvedReader>([sqlite, options] { return admin::ReadUnresolved(*sqlite, options); });
  }
  if (settings.ledger.kind != config::LedgerLocation::Kind::kPostgresql) return nullptr;
  auto session = std::make_shared<std::unique_ptr<postgres::OperatorsLedger>>();
  return std::make_unique<UnresolvedReader>(
      [session, options, url = settings.ledger.url]() -> absl::StatusOr<admin::Unresolved> {
        if (*session == nullptr) {
          auto opened = postgres::OperatorsLedger::Open(url, false, kDatabasePatience);
          if (!opened.ok()) return opened.status();
          *session = *std::move(opened);
        }
        absl::StatusOr<admin::Unresolved> list = admin::ReadUnresolved(**session, options);
        if (!list.ok()) session->reset();  // the next reading begins anew
        return list;
      });
}

UnresolvedReader::UnresolvedReader(Read read) : read_(std::move(read)), thread_([this] { Run(); }) {}

UnresolvedReader::~UnresolvedReader() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

UnresolvedReader::Answer UnresolvedReader::Get(std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  const MutexLock lock(mutex_);
  const uint64_t next = begun_ + 1;
  wanted_ = true;
  changed_.NotifyAll();
  while (ended_ < next && changed_.WaitUntil(mutex_, end)) continue;
  if (ended_ >= next) return last_;
  return {last_.list, "the ledger did not answer in time"};
}

void UnresolvedReader::Run() {
  for (;;) {
    {
      const MutexLock lock(mutex_);
      while (!wanted_ && !stop_) changed_.Wait(mutex_);
      if (stop_) return;
      wanted_ = false;
      ++begun_;
    }
    absl::StatusOr<admin::Unresolved> list = read_();
    const MutexLock lock(mutex_);
    ++ended_;
    if (list.ok()) {
      last_ = {std::make_shared<const admin::Unresolved>(*std::move(list)), ""};
    } else {
      last_.problem = absl::StrCat("the ledger cannot be read: ", std::string(list.status().message()));
    }
    changed_.NotifyAll();
  }
}

}  // namespace userintent
