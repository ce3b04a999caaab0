// What makes two requests the same, the same person, the same address; and that stored fingerprints stay valid.
#include "server/intent/fingerprint.h"

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "tests/unit/intent/valid_request.h"

namespace userintent::intent {
namespace {

using ledger::Digest;
using ledger::Fingerprints;
using Request = v1::CreateUserIntentRequest;

Secret CountingKey(size_t size) {
  std::string key;
  for (size_t i = 0; i < size; ++i) key += static_cast<char>(i);
  return Secret(key);
}

const Fingerprinter& Printer() {
  static const auto& printer = *new Fingerprinter(CountingKey(32));
  return printer;
}

std::string Hex(const Digest& digest) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

// The names of the fingerprints that differ.
std::string Differences(const Fingerprints& a, const Fingerprints& b) {
  std::string names;
  if (a.content != b.content) names += "content ";
  if (a.person != b.person) names += "person ";
  if (a.email != b.email) names += "email ";
  if (a.key_id != b.key_id) names += "key ";
  return names;
}

std::string Changed(const std::function<void(Request&)>& change, const Request& before = ValidRequest()) {
  Request after = before;
  change(after);
  return Differences(Printer().Current(before), Printer().Current(after));
}

// Computed apart from this code, from the form that fingerprint.h describes. Stored rows hold such values: if this test
// fails, every existing ledger loses its memory.
TEST(Fingerprint, KnownValues) {
  const Fingerprints prints = Printer().Current(ValidRequest());
  EXPECT_EQ(prints.key_id, 0xe29ed711affcb6d1u);
  EXPECT_EQ(Hex(prints.content), "c872e3e1a8f4967728f2f243c54fb3e33b888ad59b9cc8cdcd30b7c2fc4515a6");
  EXPECT_EQ(Hex(prints.person), "ef65dfbf91442451858eb77c16924655c3a4d1855992d7a53d3b89e3dfb25fcc");
  EXPECT_EQ(Hex(prints.email), "a6fd3bfb22430a0b8984c9429b1b23ca92b6268cc62817ddeb88f20925f70827");
  EXPECT_EQ(Printer().key_id(), prints.key_id);
}

// The same with every field given, one of them in letters beyond ASCII.
TEST(Fingerprint, KnownValuesOfAFullRequest) {
  Request request = ValidRequest();
  request.set_first_name("Zo\u00eb");
  request.set_preferred_first_name("Countess");
  request.set_preferred_last_name("King");
  request.set_preferred_pronouns("she/her");
  request.set_verification_type(v1::VERIFICATION_TYPE_UNVERIFIED);
  const Fingerprints prints = Printer().Current(request);
  EXPECT_EQ(Hex(prints.content), "978c2bda1ee99bdcd570a54b352fcf746854fd5e3031c143b5dc2da829c635ad");
  EXPECT_EQ(Hex(prints.person), "b9889553f270bae3013941cd56f4f4092fb5a4545fc9151273f61e5772a8ba7e");
  EXPECT_EQ(Hex(prints.email), "a6fd3bfb22430a0b8984c9429b1b23ca92b6268cc62817ddeb88f20925f70827");
}

TEST(Fingerprint, EveryStringThatIsSentCounts) {
  const std::string neither[] = {"request_id", "supersedes_request_id"};
  int counted = 0;
  for (int i = 0; i < Request::descriptor()->field_count(); ++i) {
    const auto& field = *Request::descriptor()->field(i);
    if (field.cpp_type() != field.CPPTYPE_STRING || field.is_repeated()) continue;
    const std::string changed = Changed([&](Request& r) { r.GetReflection()->SetString(&r, &field, "another value"); });
    if (field.name() == neither[0] || field.name() == neither[1]) {
      EXPECT_EQ(changed, "") << field.name();
    } else {
      ++counted;
      const bool is_ip = field.name() == "ip_address";
      const bool is_email = field.name() == "email";
      EXPECT_EQ(changed, is_ip ? "content " : is_email ? "content person email " : "content person ") << field.name();
    }
  }
  EXPECT_EQ(counted, 15);
}

TEST(Fingerprint, WhatIsNotSentNeverCounts) {
  EXPECT_EQ(Changed([](Request& r) { r.set_validate_only(true); }), "");
  EXPECT_EQ(Changed([](Request& r) { r.set_allow_repeat(true); }), "");
}

TEST(Fingerprint, MetadataCountsInContentOnly) {
  EXPECT_EQ(Changed([](Request& r) { r.clear_metadata(); }), "content ");
  EXPECT_EQ(Changed([](Request& r) { (*r.mutable_metadata())["order"] = "12346"; }), "content ");
  EXPECT_EQ(Changed([](Request& r) { (*r.mutable_metadata())["more"] = "x"; }), "content ");
  EXPECT_EQ(Changed([](Request& r) {
              r.clear_metadata();
              (*r.mutable_metadata())["Order"] = "12345";
              (*r.mutable_metadata())["campaign"] = "spring";
            }),
            "content ");
}

TEST(Fingerprint, MetadataOrderDoesNotCount) {
  Request forward = ValidRequest();
  Request backward = ValidRequest();
  for (int i = 0; i < 20; ++i) {
    (*forward.mutable_metadata())["key" + std::to_string(i)] = "v";
    (*backward.mutable_metadata())["key" + std::to_string(19 - i)] = "v";
  }
  EXPECT_EQ(Differences(Printer().Current(forward), Printer().Current(backward)), "");
}

TEST(Fingerprint, EmailCaseDoesNotCount) {
  EXPECT_EQ(Changed([](Request& r) { r.set_email("aDA.LOVELACE@EXAMPLE.COM"); }), "");
  EXPECT_EQ(Changed([](Request& r) { r.set_email("ada.lovelace+1@example.com"); }), "content person email ");
  EXPECT_EQ(Changed([](Request& r) { r.set_email("adalovelace@example.com"); }), "content person email ");
  // Only letters: '[' and '{' differ by the same bit as 'A' and 'a'.
  Request bracket = ValidRequest();
  bracket.set_email("a[@example.com");
  EXPECT_EQ(Changed([](Request& r) { r.set_email("a{@example.com"); }, bracket), "content person email ");
  // Other fields keep their case.
  EXPECT_EQ(Changed([](Request& r) { r.set_last_name("LOVELACE"); }), "content person ");
}

// 65 to 90 are capital letters when a length is looked at as text. The value was computed apart from this code.
TEST(Fingerprint, EmailLengthIsNotFolded) {
  Request request;
  request.set_email(std::string(53, 'A') + "@Example.com");
  ASSERT_EQ(request.email().size(), 65u);
  EXPECT_EQ(Hex(Printer().Current(request).email), "71ca38d89ba370f5f0e33d077fac3516fb5ebbd903b7d4f7afbc2a54ef79a4ec");
}

TEST(Fingerprint, VerificationType) {
  const auto as = [](int type) {
    Request request = ValidRequest();
    request.set_verification_type(static_cast<v1::VerificationType>(type));
    return Printer().Current(request);
  };
  EXPECT_EQ(Differences(as(0), as(1)), "content ");  // the same person, other JSON
  for (int a = 0; a <= 4; ++a) {
    for (int b = a + 1; b <= 4; ++b) {
      EXPECT_EQ(Differences(as(a), as(b)), a == 0 && b == 1 ? "content " : "content person ") << a << " " << b;
    }
  }
}

// Text may not wander from one field into its neighbour.
TEST(Fingerprint, FieldBoundariesCount) {
  const auto names = [](const char* first, const char* last) {
    Request request = ValidRequest();
    request.set_first_name(first);
    request.set_last_name(last);
    return Printer().Current(request);
  };
  EXPECT_EQ(Differences(names("Ada", "Lovelace"), names("AdaLove", "lace")), "content person ");
  EXPECT_EQ(Differences(names("AdaLovelace", ""), names("", "AdaLovelace")), "content person ");

  Request one = ValidRequest();
  one.set_preferred_first_name("Ada");
  Request other = ValidRequest();
  other.set_preferred_last_name("Ada");
  EXPECT_EQ(Differences(Printer().Current(one), Printer().Current(other)), "content person ");

  const auto metadata = [](const std::vector<std::pair<std::string, std::string>>& pairs) {
    Request request = ValidRequest();
    request.clear_metadata();
    for (const auto& [key, value] : pairs) (*request.mutable_metadata())[key] = value;
    return Printer().Current(request);
  };
  EXPECT_EQ(Differences(metadata({{"ab", "c"}}), metadata({{"a", "bc"}})), "content ");
  EXPECT_EQ(Differences(metadata({{"a", "b"}, {"c", "d"}}), metadata({{"a", "bcd"}})), "content ");
  EXPECT_EQ(Differences(metadata({{"a", "b"}, {"c", "d"}}), metadata({{"a", "d"}, {"c", "b"}})), "content ");

  // A value that looks like the record of the next field.
  Request plain = ValidRequest();
  plain.set_first_name("Ada");
  plain.set_last_name("Love");
  Request forged = ValidRequest();
  forged.set_first_name(std::string("Ada\0\0\0\5\0\0\0\4Love", 15));
  forged.set_last_name("");
  EXPECT_EQ(Differences(Printer().Current(plain), Printer().Current(forged)), "content person ");
}

// One address hashed for three purposes gives three unrelated values, even with nothing else in the request.
TEST(Fingerprint, DomainsAreSeparate) {
  Request request;
  request.set_email("a@example.com");
  const Fingerprints prints = Printer().Current(request);
  EXPECT_NE(prints.content, prints.email);
  EXPECT_NE(prints.content, prints.person);
  EXPECT_NE(prints.person, prints.email);
}

TEST(Fingerprint, AnEmptyRequestHasFingerprints) {
  const Fingerprints prints = Printer().Current(Request());
  EXPECT_NE(prints.email, Digest{});
  EXPECT_EQ(Differences(prints, Printer().Current(ValidRequest())), "content person email ");
}

TEST(Fingerprint, TheKeyCountsInFull) {
  const Fingerprints base = Printer().Current(ValidRequest());
  for (const size_t size : {33u, 64u, 65u, 100u}) {
    const Fingerprinter other(CountingKey(size));
    EXPECT_EQ(Differences(base, other.Current(ValidRequest())), "content person email key ") << size;
  }
  std::string last_byte(CountingKey(100).Reveal());
  const Fingerprinter a{Secret(last_byte)};
  last_byte.back() = '\x7f';
  const Fingerprinter b{Secret(last_byte)};
  EXPECT_EQ(Differences(a.Current(ValidRequest()), b.Current(ValidRequest())), "content person email key ");
  EXPECT_EQ(a.key_id(), 0x717b11e10ea6a74bu);  // longer than a block of SHA-256; computed apart
}

TEST(Fingerprint, PreviousKeys) {
  EXPECT_TRUE(Printer().Older(ValidRequest()).empty());
  EXPECT_TRUE(Printer().previous_key_ids().empty());
  const Fingerprinter older(CountingKey(64));
  const Fingerprinter rotated(CountingKey(48), {CountingKey(32), CountingKey(64)});
  const std::vector<Fingerprints> found = rotated.Older(ValidRequest());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(Differences(found[0], Printer().Current(ValidRequest())), "");
  EXPECT_EQ(Differences(found[1], older.Current(ValidRequest())), "");
  EXPECT_EQ(rotated.previous_key_ids(), (std::vector<uint64_t>{Printer().key_id(), older.key_id()}));
  EXPECT_EQ(Differences(found[0], rotated.Current(ValidRequest())), "content person email key ");
}

// One person, typed on two keyboards. Nobody sees a difference.
Request InNfc() {
  Request request = ValidRequest();
  request.set_first_name("Zo\u00eb");
  request.set_city("Ca\u00f1on");
  return request;
}
Request InNfd() {
  Request request = ValidRequest();
  request.set_first_name("Zoe\u0308");
  request.set_city("Can\u0303on");
  return request;
}
Request InBoth() {
  Request request = InNfc();
  request.set_city("Can\u0303on");
  return request;
}

// Computed apart from this code, as KnownValues.
constexpr char kPersonInNfc[] = "38dcd7868dc7f366b6e6c86afbb6a403a3e5b446cf58f2eafde6c4414ae146cb";
constexpr char kPersonInNfd[] = "ae358622977191d9e643f72279ec554fa7526e3f0e04eea55800bf362e3f7bbe";

TEST(Fingerprint, APersonIsComparedInNfcAndContentAsGiven) {
  for (const Request& request : {InNfc(), InNfd(), InBoth()}) {
    EXPECT_EQ(Hex(Printer().Current(request).person), kPersonInNfc);
  }
  EXPECT_EQ(Differences(Printer().Current(InNfc()), Printer().Current(InNfd())), "content ");
  EXPECT_EQ(Differences(Printer().Current(InNfc()), Printer().Current(InBoth())), "content ");
  for (const auto& field : {"first_name", "last_name", "preferred_first_name", "preferred_last_name",
                            "preferred_pronouns", "address1", "address2", "city"}) {
    const auto with = [&](const std::string& text) {
      Request request = ValidRequest();
      request.GetReflection()->SetString(&request, Request::descriptor()->FindFieldByName(field), text);
      return Printer().Current(request);
    };
    EXPECT_EQ(Differences(with("\u1ec7"), with("e\u0323\u0302")), "content ") << field;
    EXPECT_EQ(Differences(with("\u1ec7"), with("e\u0302\u0323")), "content ") << field << ", marks in another order";
  }
}

TEST(Fingerprint, CaseBlanksAndCompatibilityMakeAnotherPerson) {
  const auto name = [](const char* text) { return [=](Request& r) { r.set_first_name(text); }; };
  EXPECT_EQ(Changed(name("ZO\u00cb"), InNfc()), "content person ");
  EXPECT_EQ(Changed(name("Zo\u00eb "), InNfc()), "content person ");
  EXPECT_EQ(Changed(name("Zoe"), InNfc()), "content person ");
  EXPECT_EQ(Changed(name("\uff3ao\u00eb"), InNfc()), "content person ");
}

// What rows of version 1 hold of these people.
TEST(Fingerprint, OlderHasThePersonAsVersionOneHashedIt) {
  const auto persons = [](const Request& request, const Fingerprinter& printer = Printer()) {
    std::vector<std::string> all;
    for (const Fingerprints& prints : printer.Older(request)) {
      all.push_back(Hex(prints.person));
      if (prints.key_id == printer.key_id()) {
        EXPECT_EQ(Differences(prints, printer.Current(request)), "person ") << "content stays the very bytes";
      }
    }
    return all;
  };
  using List = std::vector<std::string>;
  EXPECT_EQ(persons(ValidRequest()), List());
  EXPECT_EQ(persons(InNfd()), List({kPersonInNfd}));
  EXPECT_EQ(persons(InNfc()), List({kPersonInNfd}));
  EXPECT_EQ(persons(InBoth()).size(), 2u) << "as given, and in NFD";
  EXPECT_EQ(persons(InBoth())[1], kPersonInNfd);
  Request ideograph = ValidRequest();
  ideograph.set_last_name("\u674e");  // has one form
  EXPECT_EQ(persons(ideograph), List());

  // Under a previous key too: in NFC, and as version 1 had it.
  const Fingerprinter rotated(CountingKey(48), {CountingKey(32)});
  const List of_both_keys = persons(InNfd(), rotated);
  ASSERT_EQ(of_both_keys.size(), 3u);
  EXPECT_EQ(of_both_keys[0], kPersonInNfc);
  EXPECT_EQ(of_both_keys[2], kPersonInNfd);
}

TEST(Fingerprint, ContentThatDiffersInFormOnlyIsKnownAsSuch) {
  const auto differs = [](const Request& now, const Request& before) {
    return Printer().DiffersInFormOnly(now, Printer().Current(before).content);
  };
  EXPECT_TRUE(differs(InNfc(), InNfd()));
  EXPECT_TRUE(differs(InNfd(), InNfc()));
  EXPECT_TRUE(differs(InBoth(), InNfc()));
  EXPECT_TRUE(differs(InBoth(), InNfd()));
  Request elsewhere = InNfd();
  elsewhere.set_ip_address("8.8.4.4");
  EXPECT_FALSE(differs(InNfc(), elsewhere));
  EXPECT_FALSE(differs(ValidRequest(), InNfc()));
  EXPECT_FALSE(differs(InNfc(), ValidRequest()));
  Request note = ValidRequest();
  Request other_note = ValidRequest();
  (*note.mutable_metadata())["note"] = "\u00e9";
  (*other_note.mutable_metadata())["note"] = "e\u0301";
  EXPECT_TRUE(differs(note, other_note));
  EXPECT_TRUE(differs(other_note, note));
  EXPECT_FALSE(differs(note, ValidRequest()));

  const Fingerprinter rotated(CountingKey(48), {CountingKey(32)});
  EXPECT_TRUE(rotated.DiffersInFormOnly(InNfc(), Printer().Current(InNfd()).content));
}

TEST(Fingerprint, ThreadsMayShareOne) {
  const Fingerprints expected = Printer().Current(ValidRequest());
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int& count : wrong) {
    threads.emplace_back([&expected, &count] {
      for (int i = 0; i < 2000; ++i) count += Differences(expected, Printer().Current(ValidRequest())).empty() ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace userintent::intent
