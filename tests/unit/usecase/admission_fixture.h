// What the tests of AdmissionControl begin from.
#pragma once

#include <chrono>
#include <memory>

#include "server/usecase/admission_control.h"

namespace userintent::usecase {

using Account = AdmissionControl::Account;

inline SteadyTime At(SteadyClock::duration since) { return SteadyTime(std::chrono::hours(1) + since); }

inline Account NewAccount(const policy::Limits& limits = {}) { return std::make_shared<policy::CallerAccount>(limits); }

}  // namespace userintent::usecase
