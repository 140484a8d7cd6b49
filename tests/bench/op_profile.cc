#include "tests/bench/op_profile.h"

#include <ATen/record_function.h>

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace distorch {
namespace {

using Clock = std::chrono::steady_clock;

struct Total {
  double self_seconds = 0;
  int64_t calls = 0;
};

std::mutex totals_mutex;
std::map<std::string, Total> totals;

// An operator that runs: operators call others, whose time is not theirs.
struct Running : at::ObserverContext {
  Clock::time_point start = Clock::now();
  double inner_seconds = 0;
};
thread_local std::vector<Running*> stack;

std::unique_ptr<at::ObserverContext> Enter(const at::RecordFunction&) {
  auto running = std::make_unique<Running>();
  stack.push_back(running.get());
  return running;
}

void Leave(const at::RecordFunction& op, at::ObserverContext*) {
  const Running* running = stack.back();
  stack.pop_back();
  const double seconds = std::chrono::duration<double>(Clock::now() - running->start).count();
  if (!stack.empty()) stack.back()->inner_seconds += seconds;
  const std::lock_guard lock(totals_mutex);
  Total& total = totals[op.name()];
  total.self_seconds += seconds - running->inner_seconds;
  ++total.calls;
}

}  // namespace

void StartOpProfile() {
  at::addGlobalCallback(
      at::RecordFunctionCallback(Enter, Leave).scopes({at::RecordScope::FUNCTION}));
}

void ResetOpProfile() {
  const std::lock_guard lock(totals_mutex);
  totals.clear();
}

void PrintOpProfile(std::ostream& out) {
  const std::lock_guard lock(totals_mutex);
  std::vector<std::pair<std::string, Total>> rows(totals.begin(), totals.end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.self_seconds > b.second.self_seconds;
  });
  double all = 0;
  for (const auto& [name, total] : rows) all += total.self_seconds;
  out << std::fixed << std::setprecision(3);
  for (const auto& [name, total] : rows) {
    if (total.self_seconds < 0.002 * all) break;
    out << std::setw(9) << total.self_seconds << " s " << std::setw(5) << std::setprecision(1)
        << 100 * total.self_seconds / all << " % " << std::setw(7) << total.calls << "  " << name
        << "\n"
        << std::setprecision(3);
  }
}

}  // namespace distorch
