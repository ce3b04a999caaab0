// Fingerprinter: keyed hashes that let the ledger compare requests, people and e-mail addresses without storing any of
// them. HMAC-SHA256 under the ledger key.
//
// Const methods may be called from any thread at once. Immutable after construction; owned by app.
//
// The form that is hashed must never change while a ledger lives: every repeat would look like other content. It is
//   domain NUL record...    record = field number (u32), length (u32), bytes; numbers big-endian; in field order
// where an empty value has no record, so that a field added later leaves old fingerprints as they are. metadata is one
// record, whose bytes are key length, key, value length, value for each pair, sorted by key. verification_type is one
// record of four bytes. The e-mail address is lower-cased (ASCII only). A person's text is in Unicode NFC, so that it
// does not matter on which keyboard a name was typed; content is hashed as given, because it is sent as given.
//
// Unicode promises that the normal form of text never changes once its characters are assigned, so another release of
// ICU makes the same hash.
//
// Version 1 hashed a person's text as given, version 2 in NFC. Nearly always that is the same: all of ASCII, and what
// most keyboards make. Where it is not, Older() has the version 1 forms too, so rows need no mark of their version.
#pragma once

#include <memory>
#include <vector>

#include "server/base/secret.h"
#include "server/ledger/ledger.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::intent {

class Fingerprinter {
 public:
  // Keys are used in full. `previous` are the keys before it, the last one first; rows written under them are still
  // found.
  explicit Fingerprinter(const Secret& key, const std::vector<Secret>& previous = {});
  ~Fingerprinter();
  Fingerprinter(const Fingerprinter&) = delete;
  Fingerprinter& operator=(const Fingerprinter&) = delete;

  // content: every field that Astra is sent, as given. person: content without ip_address and metadata, in NFC, with
  // UNSPECIFIED counted as VERIFIED. email: the address alone. request_id, validate_only, allow_repeat and
  // supersedes_request_id never count.
  ledger::Fingerprints Current(const v1::CreateUserIntentRequest& request) const;

  // Other fingerprints under which a row of the same request may stand. First those of Current() under each previous
  // key, in the order of the keys. Then, under every key, the person of version 1: with its text as given now, and in
  // NFD in case it came in NFD then. A row of version 1 whose fields were in different forms is found only by the same
  // bytes.
  std::vector<ledger::Fingerprints> Older(const v1::CreateUserIntentRequest& request) const;

  // Whether `content`, under any of the keys, is of this very request with its text in NFC or NFD: other bytes, but
  // nothing that a person could see.
  bool DiffersInFormOnly(const v1::CreateUserIntentRequest& request, const ledger::Digest& content) const;

  // What Fingerprints::key_id will be: tells which key a ledger was made with.
  uint64_t key_id() const;
  std::vector<uint64_t> previous_key_ids() const;

 private:
  struct Key;
  template <typename F>
  void ForEachKey(F f) const;

  std::unique_ptr<const Key> current_;
  std::vector<std::unique_ptr<const Key>> previous_;
};

}  // namespace userintent::intent
