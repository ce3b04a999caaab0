// Status: the page of /status (contract section 11): how the process stands, and what waits for a person.
//
// Read-only, and cheap to ask for: a page is made at most once a second, by one thread at a time, which waits for the
// ledger no longer than a second; whoever asks meanwhile gets the last one. So nobody can load the server with it, nor
// keep the threads of /livez. What is on it: numbers of the metrics, fixed words, names of callers and files, random
// ids; no personal data, no secret.
//
// Made by side_doors.cc, which destroys it before what it looks at. Page() may be called from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/app/unresolved_reader.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/config/settings.h"
#include "server/observe/metrics.h"
#include "server/observe/status_page.h"
#include "server/usecase/admission_control.h"

namespace userintent {

class Status {
 public:
  // What it looks at; all outlive it.
  struct View {
    const config::Settings& settings;
    const usecase::AdmissionControl& admission;
    const observe::Metrics& metrics;
    std::function<std::vector<std::string>()> reasons_not_ready;
    std::string address;  // of the gRPC port
  };

  // `unresolved` null: the ledger cannot be looked into.
  Status(View view, std::unique_ptr<UnresolvedReader> unresolved)
      : view_(std::move(view)), unresolved_(std::move(unresolved)) {}

  std::string Page();

 private:
  std::string Make();
  void AddUnresolved(observe::StatusPage& page, absl::Time now) const;

  const View view_;
  const std::unique_ptr<UnresolvedReader> unresolved_;
  std::atomic_flag making_;  // set while somebody makes a page
  Mutex mutex_;
  SteadyTime made_ ABSL_GUARDED_BY(mutex_){};
  std::string page_ ABSL_GUARDED_BY(mutex_);  // empty: none was made yet
};

}  // namespace userintent
