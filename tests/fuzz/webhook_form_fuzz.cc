// Holds the webhook door's parser and writer against CPython: webhook-form-fuzz SECONDS [SEED] [PYTHON].
//
// Bodies are made of pieces of JSON in the order of its grammar and out of it, and of pieces of earlier bodies. What
// the server makes of each must be, to the byte, what tests/support/webhook_form.py makes of it; ends with 1, and
// prints the body in base64, at the first that is not.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "server/webhook/json_object.h"

namespace userintent::webhook {
namespace {

constexpr size_t kBatch = 20'000;

constexpr std::string_view kPieces[] = {"{",
                                        "}",
                                        "[",
                                        "]",
                                        ":",
                                        ",",
                                        "\"",
                                        "\\",
                                        "\\\"",
                                        "\\\\",
                                        "\\/",
                                        "\\b",
                                        "\\n",
                                        "\\u0000",
                                        "\\u00e9",
                                        "\\ud800",
                                        "\\udc00",
                                        "\\uD83D\\uDE00",
                                        "\\u",
                                        "\\u12",
                                        "\\x",
                                        "\n",
                                        "\t",
                                        " ",
                                        "\r",
                                        "\x7f",
                                        "\x01",
                                        "null",
                                        "true",
                                        "false",
                                        "0",
                                        "-1",
                                        "1e5",
                                        "1.",
                                        "NaN",
                                        "Infinity",
                                        "{}",
                                        "[]",
                                        "\"\"",
                                        "a",
                                        "\"a\"",
                                        "\"a\":\"b\"",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80",
                                        "\xed\xa0\x80",
                                        "\xc0\x80",
                                        "\xff",
                                        "\xef\xbb\xbf",
                                        "<",
                                        "&"};

class Maker {
 public:
  explicit Maker(uint64_t seed) : engine_(seed) {}

  std::string Body() {
    std::string body = Chance(70) ? Object(true) : Chance(50) ? Noise() : Spliced();
    for (size_t changes = Chance(40) ? 1 + Below(3) : 0; changes > 0; --changes) Damage(body);
    if (earlier_.size() < 1000) {
      earlier_.push_back(body);
    } else {
      earlier_[Below(earlier_.size())] = body;
    }
    return body;
  }

 private:
  size_t Below(size_t n) { return engine_() % n; }
  bool Chance(size_t percent) { return Below(100) < percent; }
  std::string_view Piece() { return kPieces[Below(std::size(kPieces))]; }
  std::string Space() { return Chance(20) ? std::string(1, " \t\r\n"[Below(4)]) : ""; }

  std::string String() {
    std::string text = "\"";
    for (size_t i = Below(8); i > 0; --i) {
      switch (Below(4)) {
        case 0:
          text += static_cast<char>(' ' + Below(95));
          break;
        case 1: {
          char unit[8];
          std::snprintf(unit, sizeof unit, Chance(50) ? "\\u%04x" : "\\u%04X",
                        static_cast<unsigned>(Chance(50) ? 0xd800 + Below(0x800) : Below(0x10000)));
          text += unit;
          break;
        }
        default:
          text += Piece();
      }
    }
    return text + "\"";
  }

  std::string Object(bool outermost) {
    std::string text = Space() + "{";
    for (size_t i = Below(4); i > 0; --i) {
      text += Space() + String() + Space() + ":" + Space();
      text += outermost && Chance(25) ? Object(false) : Chance(95) ? String() : std::string(Piece());
      text += Space() + (i > 1 ? "," : "");
    }
    return text + Space() + "}" + Space();
  }

  std::string Noise() {
    std::string text;
    for (size_t i = Below(20); i > 0; --i) text += Piece();
    return text;
  }

  std::string Spliced() {
    if (earlier_.empty()) return "";
    const std::string& first = earlier_[Below(earlier_.size())];
    const std::string& second = earlier_[Below(earlier_.size())];
    return first.substr(0, Below(first.size() + 1)) + second.substr(Below(second.size() + 1));
  }

  void Damage(std::string& body) {
    const size_t at = Below(body.size() + 1);
    const size_t size = Chance(50) ? 0 : 1;
    body.replace(at, std::min(size, body.size() - at),
                 Chance(30) ? std::string(1, static_cast<char>(Below(256))) : std::string(Chance(20) ? "" : Piece()));
  }

  std::mt19937_64 engine_;
  std::vector<std::string> earlier_;
};

std::string ServerForm(const std::string& body) {
  const std::optional<JsonObject> object = JsonObject::Parse(body);
  return object && object->plain() ? absl::Base64Escape(object->PythonForm()) : "-";
}

// A line for each body.
std::vector<std::string> PythonForms(const std::string& python, const std::string& path,
                                     const std::vector<std::string>& bodies) {
  {
    std::ofstream file(path);
    for (const std::string& body : bodies) file << absl::Base64Escape(body) << '\n';
  }
  FILE* const pipe = popen((python + " " USERINTENT_WEBHOOK_FORM " < " + path).c_str(), "r");
  std::vector<std::string> forms;
  char* line = nullptr;
  size_t capacity = 0;
  ssize_t size;
  while (pipe != nullptr && (size = getline(&line, &capacity, pipe)) > 0) {
    forms.emplace_back(line, static_cast<size_t>(size) - 1);
  }
  std::free(line);
  if (pipe == nullptr || pclose(pipe) != 0 || forms.size() != bodies.size()) {
    std::fprintf(stderr, "%s does not answer\n", python.c_str());
    std::exit(2);
  }
  return forms;
}

int Run(int seconds, uint64_t seed, const std::string& python) {
  Maker maker(seed);
  std::string path = "/tmp/webhook-form-fuzz.XXXXXX";
  const int fd = mkstemp(path.data());
  if (fd < 0) return 2;
  close(fd);
  size_t bodies = 0, forms = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  do {
    std::vector<std::string> batch;
    for (size_t i = 0; i < kBatch; ++i) batch.push_back(maker.Body());
    const std::vector<std::string> theirs = PythonForms(python, path, batch);
    for (size_t i = 0; i < batch.size(); ++i) {
      const std::string ours = ServerForm(batch[i]);
      if (ours != theirs[i]) {
        std::fprintf(stderr, "WRONG: body %s\n  server %s\n  python %s\n", absl::Base64Escape(batch[i]).c_str(),
                     ours.c_str(), theirs[i].c_str());
        unlink(path.c_str());
        return 1;
      }
      forms += ours == "-" ? 0 : 1;
    }
    bodies += batch.size();
  } while (std::chrono::steady_clock::now() < end);
  unlink(path.c_str());
  std::printf("seed %llu: %zu bodies, %zu of them with a form, all alike\n", static_cast<unsigned long long>(seed),
              bodies, forms);
  return 0;
}

}  // namespace
}  // namespace userintent::webhook

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: webhook-form-fuzz SECONDS [SEED] [PYTHON]\n");
    return 2;
  }
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : std::random_device{}();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return userintent::webhook::Run(std::atoi(argv[1]), seed, argc > 3 ? argv[3] : "python3");
}
