#include "server/http/ca_file.h"

#include <utility>

namespace userintent::http {
namespace {

constexpr char kFlag[] = "--astra_ca_file";

}  // namespace

absl::StatusOr<std::unique_ptr<CaFile>> CaFile::Load(std::string path) {
  absl::StatusOr<Certificates> read = ReadCertificateFile(path, kFlag);
  if (!read.ok()) return read.status();
  return std::unique_ptr<CaFile>(new CaFile(std::move(path), std::make_shared<const Certificates>(*std::move(read))));
}

CaFile::CaFile(std::string path, std::shared_ptr<const Certificates> certificates)
    : path_(std::move(path)), certificates_(std::move(certificates)) {}

absl::StatusOr<bool> CaFile::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  const FileMark mark = MarkOf(path_);  // before the reading: rather news once too often than never
  absl::StatusOr<Certificates> read = ReadCertificateFile(path_, kFlag);
  if (!read.ok()) {
    refused_.Refuse(mark);
    return read.status();
  }
  refused_.Accept();
  const MutexLock lock(mutex_);
  if (read->pem == certificates_->pem) return false;
  certificates_ = std::make_shared<const Certificates>(*std::move(read));
  return true;
}

bool CaFile::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

std::shared_ptr<const Certificates> CaFile::Snapshot() const {
  const MutexLock lock(mutex_);
  return certificates_;
}

}  // namespace userintent::http
