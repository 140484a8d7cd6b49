# Makes ThreadSanitizer understand the locks of Debian's Abseil; see tests/support/tsan_abseil.cc.
add_library(distorch_tsan_abseil STATIC ${CMAKE_SOURCE_DIR}/tests/support/tsan_abseil.cc)
target_link_libraries(distorch_tsan_abseil PUBLIC absl::synchronization)
foreach(symbol
    _ZN4absl7debian35Mutex4LockEv
    _ZN4absl7debian35Mutex6UnlockEv
    _ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE
    _ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE
    _ZN4absl7debian312Notification6NotifyEv
    _ZNK4absl7debian312Notification19WaitForNotificationEv
    _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE)
  add_link_options(-Wl,--wrap=${symbol})
endforeach()
link_libraries(distorch_tsan_abseil)
