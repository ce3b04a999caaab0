// What one exchange costs the thread that owns the client, CPU alone: http-client-bench ORIGIN CA_FILE TRANSPORT
// IN_FLIGHT SECONDS, with TRANSPORT one of nghttp2, libcurl, libcurl1 (HTTP/1.1) and auto. Talks to astra-sandbox (see
// tests/bench) as its client, with bodies of the usual size and made-up data.
#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "server/http/auto_client.h"
#include "server/http/curl_global.h"

using namespace userintent::http;  // NOLINT(google-build-using-namespace): one file, one purpose

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string transport = argv[3];
  const int in_flight = std::atoi(argv[4]);
  if (!CurlGlobalInit().ok()) return 1;
  Options options;
  options.origin = argv[1];
  options.ca_file = argv[2];
  options.loopback_ok = true;
  options.reuse_http1 = false;
  options.http2 = transport != "libcurl1";
  options.transport = transport == "nghttp2" ? Transport::kNghttp2
                      : transport == "auto"  ? Transport::kAuto
                                             : Transport::kLibcurl;
  const auto created = CreateClient(options);
  if (!created.ok()) return 1;
  Client* const client = created->get();
  uint64_t answered = 0, other = 0, serial = 0;
  int under_way = 0;
  bool stop = false;
  std::function<void()> post = [&] {
    Request request;
    request.path = "/v1/user_intent";
    request.headers = {{"Authorization", "Basic c2FuZGJveC1jbGllbnQ6c2FuZGJveC1zZWNyZXQ="},
                       {"Content-Type", "application/json"},
                       {"Accept", "application/json"}};
    request.body = R"({"email":"bench)" + std::to_string(++serial) +
                   R"(@example.com","phone":"+12025550123","first_name":"Ada","last_name":"Approved",)"
                   R"("address1":"1 Example Street","address2":"","city":"Springfield","state":"IL",)"
                   R"("postal_code":"62701","date_of_birth":"1990-02-28","ssn":"1234","ip_address":"8.8.8.8",)"
                   R"("kyc_type":"verified","metadata":{"gateway_attempt_id":"0f8fad5b-d9cb-469f-a165-70867728950e"}})";
    ++under_way;
    client->Start(std::move(request), [&](Outcome outcome) {
      --under_way;
      ++(outcome.fate == Fate::kAnswered && outcome.status == 201 && outcome.body_complete ? answered : other);
      if (other == 1 && answered == 0)
        std::fprintf(stderr, "status %d: %s\n", outcome.status, std::string(outcome.detail).c_str());
      if (!stop) post();
    });
  };
  for (int i = 0; i < in_flight; ++i) post();
  const auto cpu = [] {
    rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  const auto run = [&](std::chrono::duration<double> time) {
    const auto end = userintent::SteadyClock::now() + time;
    while (userintent::SteadyClock::now() < end && (!stop || under_way > 0)) {
      int wait = 100;
      if (const auto timer = client->NextTimer()) {
        wait = std::min<int>(
            wait,
            static_cast<int>(std::max<int64_t>(
                0, std::chrono::ceil<std::chrono::milliseconds>(*timer - userintent::SteadyClock::now()).count())));
      }
      pollfd fd{client->PollFd(), POLLIN, 0};
      poll(&fd, 1, wait);
      client->Turn();
    }
  };
  run(std::chrono::seconds(1));
  const uint64_t before = answered;
  const double cpu_before = cpu();
  const double seconds = std::atof(argv[5]);
  run(std::chrono::duration<double>(seconds));
  const auto count = static_cast<double>(answered - before);
  const double spent = cpu() - cpu_before;
  stop = true;
  run(std::chrono::seconds(10));
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "%-8s in flight %d: %.0f/s, %.1f us CPU each, %llu connections, %llu answered, %llu other, peak RSS %ld KB\n",
      transport.c_str(), in_flight, count / seconds, spent / count,
      static_cast<unsigned long long>(client->stats().connections_opened), static_cast<unsigned long long>(answered),
      static_cast<unsigned long long>(other), usage.ru_maxrss);
  return other == 0 ? 0 : 1;
}
