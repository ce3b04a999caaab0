// Frames of a peer -> H2Session -> the outcome of three requests on one connection, without sockets and TLS.
//
// An input is a byte of choices, then records: type, flags, stream, length (a byte each), payload. A record whose type
// is 255 is its payload alone, as noise. The harness keeps a ledger of what the peer did to each stream; what the
// client claims of a request is held against it: nothing ends twice, refused means that the peer said so before it
// answered, answered means that a head came, and not sent means that no byte of its HEADERS was written.
#include <array>
#include <optional>
#include <string>

#include "server/astra/classify.h"
#include "server/http/h2_session.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using http::Exchange;
using http::Fate;
using http::H2Exchange;
using http::H2Session;

// What the peer has done to a stream so far.
struct Deeds {
  bool refused = false;  // RST_STREAM with REFUSED_STREAM, or a GOAWAY with a lower id
  bool headed = false;   // a HEADERS frame
  size_t data = 0;       // bytes in DATA frames, with their padding
  bool noise = false;    // bytes that are no record: anything may have been in them
};

class Peer : public H2Session::Owner {
 public:
  static constexpr int32_t kRequests = 3;

  explicit Peer(uint8_t choices) : first_write_late_((choices & 1) != 0) {
    settings_.authority = "api.example.com";
    for (size_t i = 0; i < kRequests; ++i) {
      http::Request request;
      request.path = "/v1/user_intent";
      request.headers = {{"authorization", "Basic eDp5"}, {"content-type", "application/json"}};
      const bool get = i == 2;
      request.method = get ? http::Method::kGet : http::Method::kPost;
      if (!get) request.body = (choices & 2) != 0 ? std::string(70'000, 'b') : "{}";
      Check(exchanges_[i].Take(std::move(request)), "a plain request can be sent");
    }
  }

  void Run(Input& input) {
    Check(session_.Begin(), "a session begins");
    Write();
    Feed(4, 0, 0, "");  // its SETTINGS, which every peer sends first
    for (H2Exchange& exchange : exchanges_) Check(session_.Submit(exchange), "a session takes requests");
    if (!first_write_late_) Write();
    while (!input.empty() && alive_) {
      const uint8_t type = input.Byte();
      const uint8_t flags = input.Byte();
      const int32_t stream = input.Byte();
      const std::string_view payload = input.Text(input.Byte());
      type == 255 ? FeedNoise(payload) : Feed(type, flags, stream, payload);
      Write();
    }
    for (H2Exchange& exchange : exchanges_) {
      if (ended_[IndexOf(exchange)]) continue;
      session_.Abandon(exchange);
      OnEnded(exchange, Exchange::End::kBroken, "the connection was lost");
    }
  }

 private:
  size_t IndexOf(const H2Exchange& exchange) const { return static_cast<size_t>(&exchange - exchanges_.data()); }

  void OnLeaseOver(H2Exchange&) override { Check(false, "no request of this target has a lease"); }
  void OnEnded(H2Exchange& exchange, Exchange::End end, std::string_view detail) override {
    const size_t index = IndexOf(exchange);
    Check(!ended_[index], "a request ends once");
    ended_[index] = true;
    const bool left = written_ >= exchange.stream && exchange.stream > 0;
    const Deeds& deeds = deeds_[index];
    exchange.Finish(end, http::NotSentCause::kConnect, detail);
    const http::Outcome& outcome = exchange.outcome;
    const bool noise = deeds.noise;
    Check(outcome.fate != Fate::kNotSent || !left, "what was written is never called not sent");
    Check(outcome.fate != Fate::kRefused || deeds.refused || noise, "refused is what the peer said");
    Check(outcome.fate != Fate::kRefused || !deeds.headed || noise, "and what it said before it answered");
    Check(outcome.fate != Fate::kAnswered || ((deeds.headed || noise) && outcome.status >= 200),
          "an answer has a head");
    Check(outcome.body.size() <= settings_.options.max_answer_bytes, "a body is cut at its limit");
    Check(outcome.body.size() <= deeds.data || noise, "a body is what came on its stream");
    const astra::Outcome told = astra::Classify(outcome, std::nullopt, absl::UnixEpoch());
    Check(told.verdict != astra::Verdict::kCreated || (outcome.body_complete && outcome.status / 100 == 2),
          "what was created has a whole 2xx");
  }
  void OnFieldIgnored() override {}
  void OnHttp1Required() override {}

  void Note(uint8_t type, int32_t stream, std::string_view payload) {
    const auto number = [&payload](size_t at) {
      uint32_t value = 0;
      for (size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<uint8_t>(payload[i]);
      return value;
    };
    for (size_t i = 0; i < kRequests; ++i) {
      const auto id = static_cast<int32_t>(2 * i + 1);
      Deeds& deeds = deeds_[i];
      if (type == 7 && payload.size() >= 8 && static_cast<int32_t>(number(0) & 0x7fffffff) < id) deeds.refused = true;
      if (stream != id) continue;
      if (type == 3 && payload.size() == 4 && number(0) == NGHTTP2_REFUSED_STREAM) deeds.refused = true;
      if (type == 1) deeds.headed = true;
      if (type == 0) deeds.data += payload.size();
    }
  }

  void Feed(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload) {
    Note(type, stream, payload);
    std::string bytes = {0, 0, static_cast<char>(payload.size()), static_cast<char>(type), static_cast<char>(flags), 0,
                         0, 0, static_cast<char>(stream)};
    Receive(bytes.append(payload));
  }
  void FeedNoise(std::string_view bytes) {
    for (Deeds& deeds : deeds_) deeds.noise = true;
    Receive(bytes);
  }
  void Receive(std::string_view bytes) {
    alive_ =
        alive_ && Timed([&] { return session_.Receive(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()); });
  }
  // Everything that the session has to say is written, as by a socket that is never full.
  void Write() {
    for (bool more = true; more && alive_;) {
      alive_ = Timed([&] { return session_.Collect(); });
      more = !scratch_.empty();
      for (const H2Exchange& exchange : exchanges_) {
        if (exchange.sending == Exchange::Sending::kMaybeSent) written_ = std::max(written_, exchange.stream);
      }
      scratch_.clear();
    }
  }

  const bool first_write_late_;
  http::H2Settings settings_;
  http::Pace pace_;
  std::string scratch_;
  SteadyTime now_{std::chrono::hours(1)};
  std::array<H2Exchange, kRequests> exchanges_;
  std::array<bool, kRequests> ended_{};
  std::array<Deeds, kRequests> deeds_{};
  int32_t written_ = 0;  // the highest stream whose HEADERS were
  bool alive_ = true;
  H2Session session_{settings_, *this, pace_, scratch_, now_};  // the last, because its end lets go of the others
};

}  // namespace

void Target(std::string_view bytes) {
  Input input(bytes);
  Peer peer(input.Byte());
  peer.Run(input);
}

}  // namespace userintent::fuzz
