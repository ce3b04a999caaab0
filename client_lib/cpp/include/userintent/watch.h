// userintent::Watch: what changes about the caller's own requests, as it happens.
//
//   userintent::Watch watch = client->WatchUserIntents();
//   while (auto event = watch.Next()) { ... event->creation ... store event->resume_token ... }
//   // watch.status() says why it ended
//
// A lost stream is taken up again where it stood, with pauses that grow to 10 seconds, for as long as it takes: Next()
// ends only with Cancel(), with the end of the given time, or with an error that no repeat helps. Events come at least
// once, in the order of the gateway's record; steps in between may be left out, the last state of a request never is.
//
// Threads: one at a time calls Next() or waits; everything else is for any thread. No thread is kept or made for a
// watch.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent {

struct WatchOptions {
  // Up to 1,000 request_ids of the caller's. Empty: all of the caller's.
  std::vector<std::string> request_ids = {};
  // Where an earlier watch stood (WatchEvent::resume_token, Watch::resume_token). Empty: the watch begins with the
  // present state of each named request, or with nothing when it follows all.
  std::string resume_token = {};
  // The watch ends after this time, with DEADLINE_EXCEEDED. Absent: it does not.
  std::optional<absl::Duration> timeout = {};
};

struct WatchEvent {
  enum class Kind {
    kChanged,  // creation: the present state of a request
    kSynced,   // the states from before the watch are through; once, and once more after each kReset
    kReset,    // the resume_token was too old: the watch begins anew, with the present states
  };
  Kind kind = Kind::kChanged;
  v1::Creation creation = {};
  // A later watch that is given it goes on after this event, also at another replica. At most 256 bytes.
  std::string resume_token = {};
};

// A copy stands for the same watch, which ends with the last copy.
class Watch {
 public:
  // What a watch does. The client has its own; tests bring FakeWatch (testing/fake_watch.h).
  class Source {
   public:
    virtual ~Source() = default;
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    virtual std::optional<WatchEvent> Next() = 0;
    virtual void Cancel() = 0;
    virtual absl::Status status() const = 0;
    virtual std::string resume_token() const = 0;
    // Streams so far, which errors tell (Error::tries).
    virtual int streams() const { return 1; }

   protected:
    Source() = default;
  };

  // request_id: that of the request, where the watch follows one alone; errors tell it.
  explicit Watch(std::shared_ptr<Source> source, std::string request_id = {})
      : source_(std::move(source)), request_id_(std::move(request_id)) {}

  // Waits for the next event. Absent: the watch has ended, for good.
  std::optional<WatchEvent> Next() const { return source_->Next(); }

  // ClientInterface::WaitForOutcome and WaitForStatus, of a watch that follows one request, began without a token, and
  // has given no event yet. Unlike those, they can be cancelled.
  absl::StatusOr<v1::Creation> WaitForOutcome() const;
  absl::StatusOr<v1::UserIntent> WaitForStatus(const std::vector<v1::UserIntentStatus>& statuses) const;

  // Ends the watch: Next() returns at once, also when it waits. Any number of times.
  void Cancel() const { source_->Cancel(); }

  // OK while the watch runs, then why it ended: CANCELLED, DEADLINE_EXCEEDED, or the gateway's error (ErrorOf).
  absl::Status status() const { return source_->status(); }

  // Where the watch stands: moves with every event, and while nothing happens. Empty before the first.
  std::string resume_token() const { return source_->resume_token(); }

 private:
  std::shared_ptr<Source> source_;
  std::string request_id_;
};

}  // namespace userintent
