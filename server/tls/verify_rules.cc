#include "server/tls/verify_rules.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "server/tls/client_authorities.h"
#include "server/tls/trust_domains.h"

namespace userintent::tls {
namespace {

void OnStoreFreed(void*, void* mine, CRYPTO_EX_DATA*, int, long, void*) {  // NOLINT: OpenSSL's type
  delete static_cast<VerifyRules*>(mine);
}

int StoreIndex() {
  static const int index =
      CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_X509_STORE, 0, nullptr, nullptr, nullptr, OnStoreFreed);
  return index;
}

// The certificate's only URI; nothing where it has none or several.
std::optional<std::string> OnlyUri(X509* certificate) {
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  std::optional<std::string> uri;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    if (uri) return std::nullopt;
    const ASN1_IA5STRING* const text = name->d.uniformResourceIdentifier;
    uri.emplace(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                static_cast<size_t>(ASN1_STRING_length(text)));
  }
  return uri;
}

}  // namespace

bool SameAuthority(X509* a, X509* b) {
  return X509_NAME_cmp(X509_get_subject_name(a), X509_get_subject_name(b)) == 0 &&
         EVP_PKEY_eq(X509_get0_pubkey(a), X509_get0_pubkey(b)) == 1;
}

void VerifyRules::Attach(X509_STORE* store, std::unique_ptr<VerifyRules> rules) {
  if (X509_STORE_set_ex_data(store, StoreIndex(), rules.get()) == 1) (void)rules.release();
  X509_STORE_set_verify_cb(store, OnVerify);
}

// OpenSSL asks at each fault (`ok` 0), and once at each certificate without one, the caller's own last.
int VerifyRules::OnVerify(int ok, X509_STORE_CTX* context) {
  const auto* const rules =
      static_cast<const VerifyRules*>(X509_STORE_get_ex_data(X509_STORE_CTX_get0_store(context), StoreIndex()));
  if (rules == nullptr) return 0;
  STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(context);
  const int depth = X509_STORE_CTX_get_error_depth(context);
  if (ok == 0) {
    // The authority at the end is believed because the file holds it: nobody else's list speaks of it (RFC 5280,
    // section 6.1). OpenSSL asks for one all the same where it is no root, and looks for its signer in vain.
    const int error = X509_STORE_CTX_get_error(context);
    const bool no_list = error == X509_V_ERR_UNABLE_TO_GET_CRL || error == X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER ||
                         error == X509_V_ERR_CRL_SIGNATURE_FAILURE;
    if (!no_list || depth == 0 || depth != sk_X509_num(chain) - 1) return 0;
    X509_STORE_CTX_set_error(context, X509_V_OK);
    return 1;
  }
  if (depth != 0) return 1;
  const int problem = rules->CheckName(chain);
  if (problem == X509_V_OK) return 1;
  X509_STORE_CTX_set_error(context, problem);
  return 0;
}

int VerifyRules::CheckName(STACK_OF(X509) * chain) const {
  if (domains_.empty()) return X509_V_OK;
  X509* const own = sk_X509_value(chain, 0);
  // What may vouch for others is nobody's name (SPIFFE, X509-SVID, section 4).
  if (X509_check_ca(own) != 0) return X509_V_ERR_INVALID_NON_CA;
  const std::optional<std::string> uri = OnlyUri(own);
  const std::optional<std::string_view> name = uri ? DomainOf(*uri) : std::nullopt;
  if (!name) return kWrongTrustDomain;
  const auto domain =
      std::find_if(domains_.begin(), domains_.end(), [&](const Domain& listed) { return listed.name == *name; });
  if (domain == domains_.end()) return kWrongTrustDomain;
  if (domain->authorities.parsed.empty()) return X509_V_OK;
  for (int i = 1; i < sk_X509_num(chain); ++i) {
    X509* const authority = sk_X509_value(chain, i);
    const auto& allowed = domain->authorities.parsed;
    if (std::any_of(allowed.begin(), allowed.end(),
                    [&](const auto& listed) { return SameAuthority(listed.get(), authority); })) {
      return X509_V_OK;
    }
  }
  return kWrongAuthority;
}

}  // namespace userintent::tls
