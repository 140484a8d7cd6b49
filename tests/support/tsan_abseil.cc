// Tells ThreadSanitizer what Abseil's locks order. Debian's Abseil is not instrumented, so without
// this every access that an absl::Mutex guards would be reported as a race.
// deploy/cmake/ThreadSanitizer.cmake links it into every program, with the linker's --wrap, which
// sends our calls of the functions below to __wrap_… and leaves them as __real_….
#include <sanitizer/tsan_interface.h>

#include "absl/base/config.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

// The mangled name of a member of Debian's namespace absl::debian3.
#define ABSEIL_SYMBOL(prefix, const_qualifier, name) \
  asm(prefix "_ZN" const_qualifier "4absl7debian3" name)
#define REAL(name) ABSEIL_SYMBOL("__real_", "", name)
#define REAL_CONST(name) ABSEIL_SYMBOL("__real_", "K", name)
#define WRAP(name) ABSEIL_SYMBOL("__wrap_", "", name)
#define WRAP_CONST(name) ABSEIL_SYMBOL("__wrap_", "K", name)

#define LOCK "5Mutex4LockEv"
#define UNLOCK "5Mutex6UnlockEv"
#define AWAIT "5Mutex5AwaitERKNS0_9ConditionE"
#define AWAIT_WITH_DEADLINE "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE"
#define NOTIFY "12Notification6NotifyEv"
#define WAIT "12Notification19WaitForNotificationEv"
#define WAIT_WITH_TIMEOUT "12Notification30WaitForNotificationWithTimeoutENS0_8DurationE"

using absl::Condition;
using absl::Mutex;
using absl::Notification;

void RealLock(Mutex*) REAL(LOCK);
void RealUnlock(Mutex*) REAL(UNLOCK);
void RealAwait(Mutex*, const Condition&) REAL(AWAIT);
bool RealAwaitWithDeadline(Mutex*, const Condition&, absl::Time) REAL(AWAIT_WITH_DEADLINE);
void RealNotify(Notification*) REAL(NOTIFY);
void RealWait(const Notification*) REAL_CONST(WAIT);
bool RealWaitWithTimeout(const Notification*, absl::Duration) REAL_CONST(WAIT_WITH_TIMEOUT);

void WrapLock(Mutex*) WRAP(LOCK);
void WrapUnlock(Mutex*) WRAP(UNLOCK);
void WrapAwait(Mutex*, const Condition&) WRAP(AWAIT);
bool WrapAwaitWithDeadline(Mutex*, const Condition&, absl::Time) WRAP(AWAIT_WITH_DEADLINE);
void WrapNotify(Notification*) WRAP(NOTIFY);
void WrapWait(const Notification*) WRAP_CONST(WAIT);
bool WrapWaitWithTimeout(const Notification*, absl::Duration) WRAP_CONST(WAIT_WITH_TIMEOUT);

// Of ThreadSanitizer's runtime; its header does not declare them.
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);

namespace {

// Abseil evaluates the conditions of waiting threads inside its functions, in whichever thread
// unlocks. The lock is held then, but ThreadSanitizer sees it released before the call and acquired
// after it.
class IgnoreConditions {
 public:
  IgnoreConditions() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreConditions() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

}  // namespace

void WrapLock(Mutex* mutex) {
  RealLock(mutex);
  __tsan_acquire(mutex);
}

void WrapUnlock(Mutex* mutex) {
  __tsan_release(mutex);
  IgnoreConditions ignore;
  RealUnlock(mutex);
}

void WrapAwait(Mutex* mutex, const Condition& condition) {
  __tsan_release(mutex);
  {
    IgnoreConditions ignore;
    RealAwait(mutex, condition);
  }
  __tsan_acquire(mutex);
}

bool WrapAwaitWithDeadline(Mutex* mutex, const Condition& condition, absl::Time deadline) {
  __tsan_release(mutex);
  bool met = false;
  {
    IgnoreConditions ignore;
    met = RealAwaitWithDeadline(mutex, condition, deadline);
  }
  __tsan_acquire(mutex);
  return met;
}

void WrapNotify(Notification* notification) {
  __tsan_release(notification);
  RealNotify(notification);
}

void WrapWait(const Notification* notification) {
  RealWait(notification);
  __tsan_acquire(const_cast<Notification*>(notification));
}

bool WrapWaitWithTimeout(const Notification* notification, absl::Duration timeout) {
  const bool notified = RealWaitWithTimeout(notification, timeout);
  if (notified) __tsan_acquire(const_cast<Notification*>(notification));
  return notified;
}
