// Lets the client on nghttp2 talk to peers that do whatever comes: h2-client-fuzz SECONDS [SEED].
//
// Each connection is a random walk through valid frames, valid frames in wrong places, frames with flipped bits and
// plain noise, over real TLS. Every request carries a number, and the peers note in a ledger of their own which numbers
// they read and what they wrote; what the client claims of each exchange is held against that. Ends with 1, and says
// which claim, at the first that is wrong. The walks follow from SEED; how the threads interleave does not.
#include <nghttp2/nghttp2.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/http/h2_client.h"
#include "tests/unit/http/frame_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using std::chrono::milliseconds;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  bool Chance(uint32_t percent) { return Below(100) < percent; }
  std::string Bytes(size_t size) {
    std::string bytes(size, 0);
    for (char& c : bytes) c = static_cast<char>(engine_());
    return bytes;
  }

 private:
  std::mt19937_64 engine_;
};

[[noreturn]] void Wrong(const char* claim, uint64_t serial) {
  std::fprintf(stderr, "WRONG: %s (request %llu)\n", claim, static_cast<unsigned long long>(serial));
  std::_Exit(1);
}

// What a peer has done to one of its streams, as far as it can matter to the client.
struct Deeds {
  bool refused = false;  // RST_STREAM with REFUSED_STREAM, or a GOAWAY with a lower id
  bool headed = false;   // a head
  bool spoiled = false;  // anything but the proper answer: what the request gets need not be its own
};

// What is known of each request, from both sides. Any thread. Peers note what they do before they do it; what they did
// to a stream whose request they have not read yet follows with the request.
class Ledger {
 public:
  void Read(uint64_t serial, const Deeds& deeds) {  // a peer has read its HEADERS
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[serial];
    if (entry.read++ > 0) Wrong("it was sent twice", serial);
    if (entry.ended && entry.outcome.fate == Fate::kNotSent) Wrong("it was not sent, and arrived later", serial);
    entry.deeds = deeds;
    if (entry.ended) Check(serial, entry);
  }
  void Did(uint64_t serial, const Deeds& deeds) {
    const std::lock_guard lock(mutex_);
    entries_[serial].deeds = deeds;
  }
  void Ended(uint64_t serial, const Outcome& outcome) {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[serial];
    if (entry.ended) Wrong("it ended twice", serial);
    entry.ended = true;
    entry.outcome = outcome;
    ++fates[static_cast<int>(outcome.fate)];
    if (outcome.fate == Fate::kNotSent && entry.read > 0) Wrong("it was not sent, but had arrived", serial);
    if ((outcome.fate == Fate::kAnswered) != (outcome.status >= 200)) Wrong("status and fate differ", serial);
    if (entry.read > 0) Check(serial, entry);
  }

  uint64_t fates[4] = {};

 private:
  struct Entry {
    int read = 0;
    bool ended = false;
    Deeds deeds;
    Outcome outcome;
  };
  static void Check(uint64_t serial, const Entry& entry) {
    const Outcome& outcome = entry.outcome;
    if (outcome.fate == Fate::kRefused && !entry.deeds.refused) Wrong("nobody had refused it", serial);
    if (outcome.fate == Fate::kAnswered && !entry.deeds.headed) Wrong("nobody had answered it", serial);
    if (outcome.fate == Fate::kAnswered && outcome.body_complete && !entry.deeds.spoiled &&
        outcome.body != std::to_string(serial)) {
      Wrong("it got another one's answer", serial);
    }
  }

  std::mutex mutex_;
  std::unordered_map<uint64_t, Entry> entries_;
};

// One connection of the peer. Reads and writes frames by hand, and follows what it writes as the client must.
class Walk {
 public:
  Walk(Ledger& ledger, TlsPeer& peer, uint64_t seed) : ledger_(ledger), peer_(peer), random_(seed) {
    nghttp2_hd_inflate_new(&inflater_);
    hostility_ = random_.Chance(50) ? 2 : random_.Chance(50) ? 15 : 60;
  }
  ~Walk() { nghttp2_hd_inflate_del(inflater_); }
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;

  void Run() {
    if (random_.Chance(3)) return;
    if (random_.Chance(5)) {
      Write(random_.Bytes(1 + random_.Below(200)));
    } else if (!random_.Chance(3)) {
      Send(Frame::kSettings, 0, 0, RandomSettings());
    }
    while (!over_ && steps_++ < 4000) {
      const bool readable = peer_.Readable(random_.Chance(30) ? milliseconds(2) : milliseconds(0));
      if (readable && random_.Chance(90)) {
        if (!ReadSome()) return;
      } else {
        Act();
      }
    }
  }

 private:
  struct Stream {
    uint64_t serial = 0;
    bool whole = false;   // the request has come
    bool headed = false;  // it has got a final head
    bool ended = false;
  };

  bool ReadSome() {
    char buffer[16384];
    const long n = peer_.Read(buffer, sizeof(buffer));
    if (n <= 0) return false;
    in_.append(buffer, static_cast<size_t>(n));
    if (!preface_read_) {
      if (in_.size() < 24) return true;
      in_.erase(0, 24);
      preface_read_ = true;
    }
    while (in_.size() >= 9) {
      const auto at = [this](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(in_[i])); };
      const size_t size = (at(0) << 16) + (at(1) << 8) + at(2);
      if (in_.size() < 9 + size) break;
      const uint32_t type = at(3), flags = at(4);
      const auto stream = static_cast<int32_t>(((at(5) & 0x7f) << 24) + (at(6) << 16) + (at(7) << 8) + at(8));
      const std::string payload = in_.substr(9, size);
      in_.erase(0, 9 + size);
      if (type == Frame::kHeaders) {
        Stream& opened = streams_[stream];
        opened.serial = SerialOf(payload);
        Deeds& deeds = deeds_[stream];
        deeds.refused = deeds.refused || stream > goaway_;
        if (opened.serial != 0) ledger_.Read(opened.serial, deeds);
      }
      if ((type == Frame::kData || type == Frame::kHeaders) && (flags & Frame::kEndStream) != 0) {
        streams_[stream].whole = true;
      }
      if (type == Frame::kSettings && flags == 0 && random_.Chance(95)) Send(Frame::kSettings, Frame::kAck, 0, "");
      if (type == Frame::kPing && flags == 0 && random_.Chance(90)) Send(Frame::kPing, Frame::kAck, 0, payload);
    }
    return true;
  }

  uint64_t SerialOf(const std::string& block) {
    if (blind_) return 0;
    uint64_t serial = 0;
    const auto* in = reinterpret_cast<const uint8_t*>(block.data());
    size_t left = block.size();
    for (;;) {
      nghttp2_nv field;
      int flags = 0;
      const ssize_t n = nghttp2_hd_inflate_hd2(inflater_, &field, &flags, in, left, 1);
      if (n < 0) {  // some noise changed the size of the table
        blind_ = true;
        return 0;
      }
      in += n;
      left -= static_cast<size_t>(n);
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 &&
          std::string_view(reinterpret_cast<char*>(field.name), field.namelen) == "x-serial") {
        serial = std::strtoull(reinterpret_cast<char*>(field.value), nullptr, 10);
      }
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
        nghttp2_hd_inflate_end_headers(inflater_);
        return serial;
      }
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && left == 0) return serial;
    }
  }

  int32_t AnyStream() {
    if (streams_.empty() || random_.Chance(hostility_ / 4)) return static_cast<int32_t>(random_.Below(40));
    auto at =
        streams_.lower_bound(static_cast<int32_t>(random_.Below(static_cast<uint32_t>(streams_.rbegin()->first + 1))));
    return at == streams_.end() ? streams_.rbegin()->first : at->first;
  }

  std::string RandomSettings() {
    std::string payload;
    for (uint32_t i = random_.Below(4); i > 0; --i) {
      const uint32_t id = random_.Chance(90) ? 3 + random_.Below(4) : random_.Below(20);
      if (id == 1) continue;  // the size of the table by which heads are read here
      uint32_t value = random_.Chance(hostility_) ? random_.Below(UINT32_MAX) : 0;
      if (value == 0 && id == 3) value = 1 + random_.Below(200);
      if (value == 0 && id == 4) value = random_.Below(100000);
      if (value == 0 && id == 5) value = 16384 + random_.Below(1000);
      if (value == 0 && id == 6) value = random_.Below(100000);
      payload += std::string(1, '\0') + static_cast<char>(id) + Number32(value);
    }
    return payload;
  }

  // Answers a request that is due, in one of the usual ways.
  void Answer() {
    for (auto& [id, stream] : streams_) {
      if (!stream.whole || stream.ended || random_.Chance(40)) continue;
      const std::string body = std::to_string(stream.serial);
      if (!stream.headed) {
        if (random_.Chance(10)) Send(Frame::kHeaders, Frame::kEndHeaders, id, Head(103));
        const std::string head = Head(random_.Chance(80) ? 201 : 200 + static_cast<int>(random_.Below(400)));
        if (random_.Chance(20)) {
          const std::string rest = Literal("retry-after", "1") + Literal("x", std::string(random_.Below(3000), 'x'));
          Send(Frame::kHeaders, 0, id, head);
          Send(Frame::kContinuation, Frame::kEndHeaders, id, rest);
        } else {
          Send(Frame::kHeaders, Frame::kEndHeaders, id, head);
        }
        stream.headed = true;
        if (random_.Chance(10)) return;
      }
      if (random_.Chance(10)) Send(Frame::kData, 0, id, "");
      if (random_.Chance(10)) {
        Send(Frame::kData, Frame::kEndStream | Frame::kPadded, id,
             std::string(1, '\x03') + body + std::string(3, '\0'));
      } else if (random_.Chance(10)) {
        Send(Frame::kData, 0, id, body);
        Send(Frame::kHeaders, Frame::kEndHeaders | Frame::kEndStream, id, Literal("x-trailer", "y"));
      } else {
        Send(Frame::kData, Frame::kEndStream, id, body);
      }
      stream.ended = true;
      if (random_.Chance(30)) return;
    }
  }

  void Act() {
    if (!random_.Chance(hostility_)) {
      proper_ = true;
      Answer();
      proper_ = false;
      return;
    }
    const int32_t id = AnyStream();
    switch (random_.Below(22)) {
      case 0:
        return Send(Frame::kRstStream, 0, id, Number32(NGHTTP2_REFUSED_STREAM));
      case 1:
        return Send(Frame::kRstStream, 0, id, Number32(random_.Below(14)));
      case 2:
        return Send(Frame::kGoAway, 0, 0,
                    Number32(random_.Chance(30) ? INT32_MAX : static_cast<uint32_t>(id)) + Number32(random_.Below(14)));
      case 3:
        return Send(Frame::kSettings, 0, 0, RandomSettings());
      case 4:
        return Send(Frame::kPing, static_cast<uint8_t>(random_.Below(2)), 0, random_.Bytes(random_.Chance(95) ? 8 : 7));
      case 5:
        return Send(Frame::kWindow, 0, random_.Chance(50) ? 0 : id,
                    Number32(random_.Chance(80) ? 1 + random_.Below(100000) : random_.Below(UINT32_MAX)));
      case 6:
        return Send(Frame::kData, static_cast<uint8_t>(random_.Below(2)), id, random_.Bytes(random_.Below(3000)));
      case 7:
        return Send(Frame::kHeaders, static_cast<uint8_t>(random_.Below(64)), id,
                    Head(100 + static_cast<int>(random_.Below(500))));
      case 8:
        return Send(Frame::kHeaders, Frame::kEndHeaders, id, random_.Bytes(random_.Below(200)));
      case 9:
        return Send(Frame::kContinuation, static_cast<uint8_t>(random_.Below(8)), id, Literal("a", "b"));
      case 10:
        return Send(Frame::kPushPromise, Frame::kEndHeaders, id, Number32(2) + "\x82\x87\x84");
      case 11:
        return Send(Frame::kPriority, 0, id, random_.Bytes(5));
      case 12:
        return Send(static_cast<uint8_t>(random_.Below(256)), static_cast<uint8_t>(random_.Below(256)), id,
                    random_.Bytes(random_.Below(100)));
      case 13:
        for (uint32_t i = random_.Below(2000); i > 0 && !over_; --i) Send(Frame::kPing, 0, 0, "12345678");
        return;
      case 14:
        for (uint32_t i = random_.Below(200); i > 0 && !over_; --i) Send(Frame::kSettings, 0, 0, "");
        return;
      case 15: {
        std::string field = Literal("x", std::string(3000, 'y'));
        field[0] = '\x40';
        return Send(Frame::kHeaders, Frame::kEndHeaders, id,
                    Head(429) + field + std::string(random_.Below(13000), '\xbe'));
      }
      case 16:
        Send(Frame::kHeaders, 0, id, Head(201));
        for (uint32_t i = random_.Below(30); i > 0; --i) Send(Frame::kContinuation, 0, id, "");
        return;
      case 17:
        return Write(random_.Bytes(1 + random_.Below(300)));
      case 18:
        mutate_ = true;
        Answer();
        mutate_ = false;
        return;
      case 19:
        if (!random_.Chance(30)) return;
        over_ = true;
        if (random_.Chance(30)) return peer_.CloseNotify();
        if (random_.Chance(30)) return peer_.Reset();
        return peer_.Fin();
      case 20:
        if (random_.Chance(20)) std::this_thread::sleep_for(milliseconds(random_.Below(200)));
        return;
      default:
        return Send(Frame::kData, Frame::kEndStream, id, std::string(random_.Below(100000) % 16000, 'z'));
    }
  }

  void Send(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload) {
    std::string bytes = Frame{type, flags, stream, std::string(payload)}.Bytes();
    if (mutate_ && random_.Chance(50)) {
      for (uint32_t i = 1 + random_.Below(3); i > 0; --i) {
        bytes[random_.Below(static_cast<uint32_t>(bytes.size()))] ^= static_cast<char>(1u << random_.Below(8));
      }
      if (random_.Chance(20)) bytes.resize(random_.Below(static_cast<uint32_t>(bytes.size())) + 1);
    }
    Write(bytes);
  }

  // Notes what the bytes may mean to the client before they can have any effect.
  void Write(const std::string& bytes) {
    Follow(bytes);
    for (size_t at = 0; at < bytes.size() && !over_; at += 16384) {
      if (!peer_.Write(std::string_view(bytes).substr(at, 16384))) over_ = true;
    }
  }

  void Follow(const std::string& bytes) {
    out_ += bytes;
    while (out_.size() >= 9) {
      const auto at = [this](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(out_[i])); };
      const size_t size = (at(0) << 16) + (at(1) << 8) + at(2);
      const uint32_t type = at(3);
      const auto stream = static_cast<int32_t>(((at(5) & 0x7f) << 24) + (at(6) << 16) + (at(7) << 8) + at(8));
      // Of a frame whose end is still missing the client may have acted on the beginning.
      if (type == Frame::kHeaders || type == Frame::kData) {
        Deeds& deeds = deeds_[stream];
        deeds.headed = deeds.headed || type == Frame::kHeaders;
        deeds.spoiled = deeds.spoiled || !proper_;
        Tell(stream);
      }
      if (out_.size() < 9 + size) return;
      if (type == Frame::kRstStream && size == 4 && out_.substr(9, 4) == Number32(NGHTTP2_REFUSED_STREAM)) {
        deeds_[stream].refused = true;
        Tell(stream);
      }
      if (type == Frame::kGoAway && size >= 8) {
        const auto last = static_cast<int32_t>(((at(9) & 0x7f) << 24) + (at(10) << 16) + (at(11) << 8) + at(12));
        goaway_ = std::min(goaway_, last);
        for (const auto& [id, opened] : streams_) {
          if (id <= last) continue;
          deeds_[id].refused = true;
          Tell(id);
        }
      }
      out_.erase(0, 9 + size);
    }
  }

  void Tell(int32_t stream) {
    const auto opened = streams_.find(stream);
    if (opened != streams_.end() && opened->second.serial != 0) ledger_.Did(opened->second.serial, deeds_[stream]);
  }

  Ledger& ledger_;
  TlsPeer& peer_;
  Random random_;
  nghttp2_hd_inflater* inflater_ = nullptr;
  uint32_t hostility_ = 0;  // percent of the steps
  int steps_ = 0;
  bool preface_read_ = false;
  bool over_ = false;
  bool mutate_ = false;
  bool proper_ = false;  // what is written belongs to a proper answer
  bool blind_ = false;   // heads cannot be read any more
  int32_t goaway_ = INT32_MAX;
  std::string in_, out_;
  std::map<int32_t, Stream> streams_;
  std::map<int32_t, Deeds> deeds_;
};

int Run(int seconds, uint64_t seed) {
  Ledger ledger;
  TlsServer::Settings settings;
  settings.alpn = "h2";
  auto server = std::make_unique<TlsServer>(
      settings, [&](TlsPeer& peer) { Walk(ledger, peer, seed * 1000003 + static_cast<uint64_t>(peer.index())).Run(); });
  Options options;
  options.origin = server->origin();
  options.ca_file = TestCaFile();
  options.loopback_ok = true;
  options.connect_timeout = milliseconds(1000);
  options.exchange_timeout = milliseconds(1000);
  options.max_connections = 4;
  options.max_answer_bytes = 4096;
  options.max_header_bytes = 4096;
  H2Tuning tuning;
  tuning.ping_after = milliseconds(100);
  tuning.ping_timeout = milliseconds(100);
  tuning.idle_limit = milliseconds(50);
  tuning.age_limit = milliseconds(500);
  tuning.reconnect_after = milliseconds(20);
  tuning.max_streams = 50;
  Random random(seed);
  auto created = H2Client::Create(options, nullptr, tuning);
  if (!created.ok()) Wrong("no client", 0);
  std::unique_ptr<H2Client> client = *std::move(created);

  uint64_t serial = 0, ended = 0, cancelled = 0;
  SteadyClock::duration longest{};
  std::map<Client::ExchangeId, uint64_t> open;
  const auto start_one = [&] {
    const uint64_t mine = ++serial;
    Request request;
    request.path = "/v1/user_intent";
    request.headers = {{"Authorization", "Basic dGVzdDp0ZXN0"}, {"X-Serial", std::to_string(mine)}};
    if (random.Chance(30)) request.method = Method::kGet;
    if (request.method == Method::kPost)
      request.body.assign(random.Chance(95) ? 1 + random.Below(2000) : 1 + random.Below(300000), 'x');
    const auto began = SteadyClock::now();
    const auto id = std::make_shared<Client::ExchangeId>(0);
    *id = client->Start(std::move(request), [&, mine, began, id](const Outcome& outcome) {
      ledger.Ended(mine, outcome);
      open.erase(*id);
      ++ended;
      longest = std::max(longest, SteadyClock::now() - began);
    });
    open[*id] = mine;
  };
  const auto end = SteadyClock::now() + std::chrono::seconds(seconds);
  while (SteadyClock::now() < end || !open.empty()) {
    const bool more = SteadyClock::now() < end;
    for (uint32_t burst = random.Below(20); more && burst > 0 && open.size() < 100; --burst) start_one();
    if (random.Chance(5) && !open.empty()) {
      auto victim = open.lower_bound(1 + random.Below(static_cast<uint32_t>(open.rbegin()->first)));
      if (victim != open.end() && client->CancelUnsent(victim->first)) ++cancelled;
    }
    int wait = 2;
    if (const auto timer = client->NextTimer(); timer && *timer <= SteadyClock::now()) wait = 0;
    pollfd fd{client->PollFd(), POLLIN, 0};
    poll(&fd, 1, wait);
    client->Turn();
    if (SteadyClock::now() > end + std::chrono::seconds(60)) Wrong("it never ended", open.begin()->second);
  }
  if (ended != serial) Wrong("not all have ended", serial - ended);
  if (longest > options.exchange_timeout + std::chrono::seconds(20)) Wrong("it outlived its time", 0);
  const int connections = server->accepted;
  client.reset();
  server.reset();
  std::printf(
      "seed %llu: %llu exchanges on %d connections: not sent %llu (cancelled %llu), refused %llu, answered %llu, maybe "
      "sent %llu; the longest took %lld ms\n",
      static_cast<unsigned long long>(seed), static_cast<unsigned long long>(ended), connections,
      static_cast<unsigned long long>(ledger.fates[0]), static_cast<unsigned long long>(cancelled),
      static_cast<unsigned long long>(ledger.fates[1]), static_cast<unsigned long long>(ledger.fates[2]),
      static_cast<unsigned long long>(ledger.fates[3]),
      static_cast<long long>(std::chrono::duration_cast<milliseconds>(longest).count()));
  return 0;
}

}  // namespace
}  // namespace userintent::http

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: h2-client-fuzz SECONDS [SEED]\n");
    return 2;
  }
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return userintent::http::Run(std::atoi(argv[1]), seed);
}
