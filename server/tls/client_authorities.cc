#include "server/tls/client_authorities.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "server/base/public_file.h"
#include "server/tls/pem.h"
#include "server/tls/verify_rules.h"

namespace userintent::tls {
namespace {

constexpr std::string_view kAuthoritiesFlag = "--tls_client_ca_file";
constexpr std::string_view kListsFlag = "--tls_client_crl_file";
constexpr std::string_view kDomainsFlag = "--trust_domain";
constexpr size_t kMostOfLists = size_t{16} << 20;  // bytes; some 300,000 certificates

using Trust = ClientAuthorities::Trust;

// The authority of the file that signed the list; null: none.
X509* SignerOf(X509_CRL* list, const Certificates& authorities) {
  for (const auto& authority : authorities.parsed) {
    if (X509_NAME_cmp(X509_get_subject_name(authority.get()), X509_CRL_get_issuer(list)) != 0) continue;
    if ((X509_get_key_usage(authority.get()) & KU_CRL_SIGN) == 0) continue;
    if (X509_CRL_verify(list, X509_get0_pubkey(authority.get())) == 1) return authority.get();
  }
  return nullptr;
}

// A list that is not of now is refused rather than believed: with it nobody would get in, and a good one may stand.
absl::Status CheckList(X509_CRL* list, X509* signer) {
  if (signer == nullptr) {
    return Refused(kListsFlag,
                   "holds a list that no authority in --tls_client_ca_file signed; authorities between "
                   "callers and a root belong into that file, too");
  }
  if (X509_CRL_get_ext_by_NID(list, NID_delta_crl, -1) >= 0) {
    return Refused(kListsFlag, "holds a list that only changes another one (delta)");
  }
  if (X509_CRL_get0_nextUpdate(list) == nullptr) return Refused(kListsFlag, "holds a list without an end (nextUpdate)");
  if (X509_cmp_current_time(X509_CRL_get0_nextUpdate(list)) < 0) {
    return Refused(kListsFlag, "holds a list that has expired (nextUpdate)");
  }
  if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(list)) > 0) {
    return Refused(kListsFlag, "holds a list that is not valid yet (thisUpdate)");
  }
  return absl::OkStatus();
}

absl::Status ReadLists(const std::string& text, Trust& trust) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())),
                                                      BIO_free);
  ERR_clear_error();
  while (X509_CRL* const read = PEM_read_bio_X509_CRL(bio.get(), nullptr, NoPassphrase, nullptr)) {
    Trust::List list{{read, X509_CRL_free}, SignerOf(read, trust.certificates)};
    if (absl::Status status = CheckList(read, list.signer); !status.ok()) return status;
    const SystemTime end = TimeOf(X509_CRL_get0_nextUpdate(read));
    trust.lists_end = std::min(trust.lists_end.value_or(end), end);
    trust.lists.push_back(std::move(list));
  }
  // The end of the file is an error of its own kind; any other one means that a list is damaged.
  const unsigned long error = ERR_peek_last_error();  // NOLINT: OpenSSL's type
  if (ERR_GET_LIB(error) != ERR_LIB_PEM || ERR_GET_REASON(error) != PEM_R_NO_START_LINE) {
    return Refused(kListsFlag, "holds a damaged list");
  }
  ERR_clear_error();
  if (trust.lists.empty()) return Refused(kListsFlag, "holds no list of revoked certificates (CRL) in PEM form");
  for (const auto& authority : trust.certificates.parsed) {
    const bool has_list = std::any_of(trust.lists.begin(), trust.lists.end(), [&](const Trust::List& list) {
      return SameAuthority(list.signer, authority.get());
    });
    if (!has_list && X509_check_ca(authority.get()) != 0) {
      return Refused(kListsFlag,
                     "holds no list of an authority in --tls_client_ca_file, whose callers would be refused");
    }
  }
  return absl::OkStatus();
}

// Whether the file holds a certificate that is no root, without whoever vouched for it.
bool HoldsOrphans(const Certificates& authorities) {
  const auto is_orphan = [&](const auto& one) {
    return std::none_of(authorities.parsed.begin(), authorities.parsed.end(),
                        [&](const auto& other) { return X509_check_issued(other.get(), one.get()) == X509_V_OK; });
  };
  return std::any_of(authorities.parsed.begin(), authorities.parsed.end(), is_orphan);
}

void MakeStore(Trust& trust, std::vector<VerifyRules::Domain> domains) {
  trust.store.reset(X509_STORE_new());
  trust.names.reset(sk_X509_NAME_new_null());
  trust.not_after = SystemTime::max();
  // As libgrpc sets its own store: what is in the file is believed, also where it is no root. But then a chain ends at
  // the first authority of the file, and no list is asked whether that one was revoked. So with lists chains go up to
  // their root, where the file has it; where it does not, a revoked authority is left out.
  const bool to_the_root = !trust.lists.empty() && !HoldsOrphans(trust.certificates);
  unsigned long flags = X509_V_FLAG_TRUSTED_FIRST;  // NOLINT: OpenSSL's type
  if (!to_the_root) flags |= X509_V_FLAG_PARTIAL_CHAIN;
  if (!trust.lists.empty()) flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
  X509_STORE_set_flags(trust.store.get(), flags);
  for (const auto& certificate : trust.certificates.parsed) {
    if (!to_the_root && trust.Revoked(*certificate)) continue;
    X509_STORE_add_cert(trust.store.get(), certificate.get());
    sk_X509_NAME_push(trust.names.get(), X509_NAME_dup(X509_get_subject_name(certificate.get())));
    trust.not_after = std::min(trust.not_after, TimeOf(X509_get0_notAfter(certificate.get())));
  }
  for (const Trust::List& list : trust.lists) X509_STORE_add_crl(trust.store.get(), list.list.get());
  VerifyRules::Attach(trust.store.get(), std::make_unique<VerifyRules>(std::move(domains)));
  ERR_clear_error();
}

// Null: the files hold what `current` was made of.
absl::StatusOr<std::shared_ptr<const Trust>> ReadTrust(const ClientFiles& files, const Trust* current) {
  auto trust = std::make_shared<Trust>();
  absl::StatusOr<Certificates> read = ReadCertificateFile(files.authorities, kAuthoritiesFlag);
  if (!read.ok()) return read.status();
  trust->certificates = *std::move(read);
  absl::StatusOr<std::string> lists = std::string();
  if (!files.lists.empty()) lists = ReadPublicFile(files.lists, kListsFlag, kMostOfLists);
  if (!lists.ok()) return lists.status();
  trust->texts = trust->certificates.pem + '\0' + *lists;
  std::vector<VerifyRules::Domain> domains;
  for (const TrustDomain& domain : files.domains.all) {
    domains.push_back({domain.name, {}});
    if (domain.authority_file.empty()) continue;
    absl::StatusOr<Certificates> authorities = ReadCertificateFile(domain.authority_file, kDomainsFlag);
    if (!authorities.ok()) return authorities.status();
    trust->texts.append(1, '\0').append(authorities->pem);
    domains.back().authorities = *std::move(authorities);
  }
  if (current != nullptr && trust->texts == current->texts) return nullptr;
  if (!files.lists.empty()) {
    if (absl::Status status = ReadLists(*lists, *trust); !status.ok()) return status;
  }
  MakeStore(*trust, std::move(domains));
  return trust;
}

std::vector<FileMark> MarksOf(const ClientFiles& files) {
  std::vector<FileMark> marks{MarkOf(files.authorities), MarkOf(files.lists)};
  for (const TrustDomain& domain : files.domains.all) marks.push_back(MarkOf(domain.authority_file));
  return marks;
}

}  // namespace

const char* VerifyErrorText(long error) {  // NOLINT: OpenSSL's type
  if (error == kWrongTrustDomain) return "not one name of a trust domain in --trust_domain";
  if (error == kWrongAuthority) return "its authority may not name callers of this trust domain (--trust_domain)";
  return X509_verify_cert_error_string(error);
}

bool Trust::Revoked(X509& certificate) const {
  return std::any_of(lists.begin(), lists.end(), [&](const List& entry) {
    X509_CRL* const list = entry.list.get();
    X509_REVOKED* found = nullptr;
    // By name, by number (1: revoked), and by key: two authorities of one name may have used one number.
    return X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_issuer_name(&certificate)) == 0 &&
           X509_CRL_get0_by_cert(list, &found, &certificate) == 1 &&
           X509_verify(&certificate, X509_get0_pubkey(entry.signer)) == 1;
  });
}

ClientAuthorities::ClientAuthorities(ClientFiles files, std::shared_ptr<const Trust> trust)
    : files_(std::move(files)), trust_(std::move(trust)) {}

absl::StatusOr<std::unique_ptr<ClientAuthorities>> ClientAuthorities::Load(ClientFiles files) {
  absl::StatusOr<std::shared_ptr<const Trust>> trust = ReadTrust(files, nullptr);
  if (!trust.ok()) return trust.status();
  return std::unique_ptr<ClientAuthorities>(new ClientAuthorities(std::move(files), *std::move(trust)));
}

absl::StatusOr<bool> ClientAuthorities::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  const std::vector<FileMark> marks = MarksOf(files_);  // before the reading: rather news once too often than never
  absl::StatusOr<std::shared_ptr<const Trust>> fresh = ReadTrust(files_, Snapshot().get());
  if (!fresh.ok()) {
    refused_.Refuse(marks);
    return fresh.status();
  }
  refused_.Accept();
  if (*fresh == nullptr) return false;
  const MutexLock lock(mutex_);
  trust_ = *std::move(fresh);
  generation_.fetch_add(1, std::memory_order_release);
  return true;
}

bool ClientAuthorities::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

std::shared_ptr<const Trust> ClientAuthorities::Snapshot() const {
  const MutexLock lock(mutex_);
  return trust_;
}

}  // namespace userintent::tls
