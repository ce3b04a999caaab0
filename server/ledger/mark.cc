#include "server/ledger/mark.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/ledger/files.h"

namespace userintent::ledger {
namespace {

constexpr char kTitle[] = "userintent ledger mark 1";
constexpr size_t kLongest = 4096;
constexpr int64_t kSecond = 1'000'000;

// The lines of the file, in this order. Never another meaning under the same title.
constexpr std::pair<const char*, int64_t Mark::*> kFields[] = {
    {"made_at", &Mark::made_at},
    {"revision", &Mark::revision},
    {"in_file", &Mark::in_file},
    {"acknowledged", &Mark::acknowledged},
};

std::string Body(const Mark& mark) {
  std::string text = absl::StrCat(kTitle, "\n");
  for (const auto& [name, field] : kFields) absl::StrAppend(&text, name, " ", mark.*field, "\n");
  return text;
}

std::string WithSum(const std::string& body) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(body.data()), body.size(), digest.data());
  const std::string hex = absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), 8});
  return absl::StrCat(body, "sum ", hex, "\n");
}

absl::Status WriteNew(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return Unable(path, "make it");
  absl::Status status;
  if (::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    status = Unable(path, "write it");
  } else if (::fsync(fd) != 0) {
    status = Unable(path, "sync it");
  }
  if (::close(fd) != 0 && status.ok()) status = Unable(path, "close it");
  return status;
}

int64_t WholeSeconds(int64_t micros) { return micros / kSecond * kSecond; }

}  // namespace

std::string MarkPath(const std::string& ledger) { return ledger + ".mark"; }

absl::StatusOr<std::optional<Mark>> ReadMark(const std::string& ledger) {
  const std::string path = MarkPath(ledger);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    if (errno == ENOENT) return std::nullopt;
    return Unable(path, "open it");
  }
  std::string text(kLongest, '\0');
  const ssize_t size = ::read(fd, text.data(), text.size());
  const int error = errno;
  ::close(fd);
  errno = error;
  if (size < 0) return Unable(path, "read it");
  text.resize(static_cast<size_t>(size));

  Mark mark;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  bool good = lines.size() == std::size(kFields) + 3;
  for (size_t i = 0; good && i < std::size(kFields); ++i) {
    const std::pair<std::string, std::string> line = absl::StrSplit(lines[i + 1], absl::MaxSplits(' ', 1));
    good = absl::SimpleAtoi(line.second, &(mark.*kFields[i].second));
  }
  if (!good || WithSum(Body(mark)) != text) return absl::DataLossError(absl::StrCat(path, ": is damaged"));
  return mark;
}

absl::Status WriteMark(const std::string& ledger, const Mark& mark) {
  const std::string path = MarkPath(ledger);
  const std::string fresh = path + ".new";
  if (absl::Status s = WriteNew(fresh, WithSum(Body(mark))); !s.ok()) return s;
  if (::rename(fresh.c_str(), path.c_str()) != 0) return Unable(path, "replace it");
  const std::filesystem::path parent = std::filesystem::path(ledger).parent_path();
  const int holder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (holder < 0 || ::fsync(holder) != 0) {
    const absl::Status status = Unable(path, "sync its directory");
    if (holder >= 0) ::close(holder);
    return status;
  }
  ::close(holder);
  return absl::OkStatus();
}

Comparison Compare(const Standing& standing, const absl::StatusOr<std::optional<Mark>>& mark) {
  if (!mark.ok()) return Comparison::kBadMark;
  // Without a revision it is new, or from before there were marks.
  if (!*mark) return standing.revision == 0 ? Comparison::kServed : Comparison::kNoMark;
  if (standing.made_at != (*mark)->made_at) return Comparison::kOther;
  return standing.revision < (*mark)->revision ? Comparison::kOlder : Comparison::kServed;
}

absl::Status Acknowledges(std::optional<absl::Time> restored, const std::string& ledger, const Standing& standing,
                          const Mark& mark, absl::Time now) {
  // What is gone altogether was empty when it was made.
  const int64_t found = standing.made_at == 0 ? mark.made_at : std::max(standing.revision, standing.last_change);
  const int64_t first = WholeSeconds(found);
  const int64_t last = std::max(first, absl::ToUnixMicros(now));
  const bool other = standing.made_at != 0 && standing.made_at != mark.made_at;
  std::string text = absl::StrCat("ledger ", ledger, ": ");
  if (standing.made_at == 0) {
    absl::StrAppend(&text, "is gone; this directory served it until ", TimeText(mark.revision),
                    ", and all that it knew would be sent again");
  } else {
    absl::StrAppend(&text, "was last changed at ", TimeText(found), ", but this directory served ",
                    other ? "another one" : "it", " until ", TimeText(mark.revision),
                    "; what was sent in between is not in it, and would be sent again");
  }
  if (restored && absl::ToUnixMicros(*restored) == mark.acknowledged) {
    absl::StrAppend(
        &text, "; --ledger_restored=", TimeText(mark.acknowledged),
        " has acknowledged an earlier restore, or was given at a start that needed none, and does not count again");
  } else if (restored && absl::ToUnixMicros(*restored) >= first && absl::ToUnixMicros(*restored) < last + kSecond) {
    return absl::OkStatus();
  } else if (restored) {
    absl::StrAppend(&text, "; --ledger_restored does not name this backup, it must be ", TimeText(first),
                    " or later, and not in the future");
  }
  const int64_t offer = first == mark.acknowledged ? first + kSecond : first;
  absl::StrAppend(&text, "; put the newest ledger back, or acknowledge the loss by --ledger_restored=", TimeText(offer),
                  " (the time of the backup)");
  return absl::FailedPreconditionError(text);
}

std::string TimeText(int64_t micros) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::FromUnixMicros(micros), absl::UTCTimeZone());
}

}  // namespace userintent::ledger
