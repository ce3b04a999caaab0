// The resume tokens of watches. An input is a caller up to the first newline, then a position, then a token.
//
// The oracle: nobody makes a token without the key, so whatever the input has is foreign; a token that was made is good
// for its caller alone, and not after any change.
#include <string>

#include "server/usecase/watch_token.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {

void Target(std::string_view bytes) {
  using usecase::WatchPosition;
  using usecase::WatchTokens;
  using Verdict = WatchTokens::Verdict;
  static const auto& tokens =
      *new WatchTokens({.ledger_id = 7, .restored = 3}, Secret(std::string(32, 'k')), {Secret(std::string(32, 'l'))});
  static const auto& before = *new WatchTokens({.ledger_id = 7, .restored = 2}, Secret(std::string(32, 'l')), {});
  static const auto& another = *new WatchTokens({.ledger_id = 8, .restored = 3}, Secret(std::string(32, 'k')), {});

  Input input(bytes);
  const std::string_view caller = input.Until('\n');
  WatchPosition position;
  if (input.Bit()) position.revision = static_cast<int64_t>(input.Number(8) >> 1);
  const size_t place = static_cast<size_t>(input.Number(2));
  const uint8_t change = input.Byte();
  const std::string_view token = input.Rest();

  WatchPosition read{-5};
  Check(Timed([&] { return tokens.Read(caller, token, &read); }) == Verdict::kForeign, "a made-up token is foreign");
  Check(read == WatchPosition{-5}, "and says nothing");

  std::string made = Timed([&] { return tokens.Make(caller, position); });
  Check(made.size() <= 256, "a token is short");
  Check(Timed([&] { return tokens.Read(caller, made, &read); }) == Verdict::kGood, "a token that was made is good");
  Check(read == position, "and says where it stands");
  Check(tokens.Read(std::string(caller) + "x", made, &read) == Verdict::kForeign, "a token is good for one caller");
  Check(another.Read(caller, made, &read) == Verdict::kForeign, "a token is good at one ledger");
  Check(tokens.Read(caller, before.Make(caller, position), &read) == Verdict::kTooOld,
        "a restore makes tokens too old");

  std::string changed = made;
  if (change != 0) {
    changed[place % changed.size()] = static_cast<char>(changed[place % changed.size()] ^ change);
  } else {
    changed.resize(place % made.size());
  }
  Check(tokens.Read(caller, changed, &read) == Verdict::kForeign, "no part of a token may change");
  Check(tokens.Read(caller, made + std::string(token.substr(0, 1)) + "x", &read) == Verdict::kForeign,
        "nothing may stand behind a token");
}

}  // namespace userintent::fuzz
