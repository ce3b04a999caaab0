// VerifyRules: what this server asks of a caller's certificate beside what OpenSSL asks. Belongs to one X509_STORE and
// ends with it; never changes; any thread.
#pragma once

#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/certificates.h"

namespace userintent::tls {

class VerifyRules {
 public:
  struct Domain {
    std::string name;
    Certificates authorities;  // empty: any that is believed
  };

  // `domains` empty: names are not pinned.
  explicit VerifyRules(std::vector<Domain> domains) : domains_(std::move(domains)) {}

  // From now on the store's verifications go by the rules.
  static void Attach(X509_STORE* store, std::unique_ptr<VerifyRules> rules);

 private:
  static int OnVerify(int ok, X509_STORE_CTX* context);

  // X509_V_OK, or why the certificate may not have its name. `chain` begins with it.
  int CheckName(STACK_OF(X509) * chain) const;

  const std::vector<Domain> domains_;
};

// The same authority: the same name and the same key, so that a renewed certificate of it counts as well.
bool SameAuthority(X509* a, X509* b);

}  // namespace userintent::tls
