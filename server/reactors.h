// The two shapes of a call: one answer, and a stream of events that ends with a result.
//
// A reactor is held by gRPC (until OnDone) and by the core's callbacks, whichever lets go last:
// late callbacks are safe. Every call must be ended by exactly one Finish.
#ifndef SERVER_REACTORS_H_
#define SERVER_REACTORS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/call.h"
#include "server/logging.h"
#include "server/methods.h"
#include "server/worker_pool.h"

namespace distorch {

class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // `start` is called with the call (a shared_ptr) unless it is refused, and must not block.
  template <typename Start>
  static grpc::ServerUnaryReactor* Run(CallMonitor* monitor, grpc::CallbackServerContext* context,
                                       MethodName method, Start start) {
    auto call = std::make_shared<UnaryCall>(monitor, context, method);
    call->self_ = call;
    if (call->call_.admission().ok()) {
      start(call);
    } else {
      call->Finish(call->call_.admission());
    }
    return call.get();
  }

  // `work` (→ absl::Status, filling the response) is run in `pool`, as the whole of the call.
  template <typename Work>
  static grpc::ServerUnaryReactor* RunInPool(CallMonitor* monitor, WorkerPool* pool,
                                             grpc::CallbackServerContext* context,
                                             MethodName method, Work work) {
    return Run(monitor, context, method, [&](const std::shared_ptr<UnaryCall>& call) {
      pool->Run([call, work = std::move(work)] {
        const absl::Status cancelled = call->cancel()->Check();
        call->Finish(cancelled.ok() ? work() : cancelled);
      });
    });
  }

  UnaryCall(CallMonitor* monitor, grpc::CallbackServerContext* context, MethodName method)
      : call_(monitor, context, method) {}

  const CancelTokenPtr& cancel() const { return call_.cancel(); }
  // As Call::Log.
  void Log(Logger::Level level, std::string_view message, LogFields fields) const {
    call_.Log(level, message, std::move(fields));
  }
  // The response is complete. From any thread.
  void Finish(const absl::Status& status) {
    grpc::ServerUnaryReactor::Finish(call_.Answer(status));
  }

 private:
  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override {
    call_.End();
    std::shared_ptr<UnaryCall> last = std::move(self_);
  }

  Call call_;
  std::shared_ptr<UnaryCall> self_;
};

using UnaryCallPtr = std::shared_ptr<UnaryCall>;

// Events are written one at a time; those that wait are bounded: when a slow client lets
// kMaxWaiting droppable events gather, the oldest of them go. Other events and the last one are
// always sent.
template <typename Event>
class EventStream final : public grpc::ServerWriteReactor<Event> {
 public:
  static constexpr std::size_t kMaxWaiting = 8;

  // As UnaryCall::Run.
  template <typename Start>
  static grpc::ServerWriteReactor<Event>* Run(CallMonitor* monitor,
                                              grpc::CallbackServerContext* context,
                                              MethodName method, Start start) {
    auto stream = std::make_shared<EventStream>(monitor, context, method);
    stream->self_ = stream;
    if (stream->call_.admission().ok()) {
      start(stream);
    } else {
      stream->Finish(stream->call_.admission());
    }
    return stream.get();
  }

  EventStream(CallMonitor* monitor, grpc::CallbackServerContext* context, MethodName method)
      : call_(monitor, context, method) {}

  const CancelTokenPtr& cancel() const { return call_.cancel(); }

  // As Call::Log.
  void Log(Logger::Level level, std::string_view message, LogFields fields) const {
    call_.Log(level, message, std::move(fields));
  }
  // Sends `event` when its turn comes. Ignored after Finish. From any thread; never blocks.
  void Send(Event event, bool droppable) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_ || broken_) return;
      if (droppable) DropOldest();
      waiting_.push_back({std::move(event), droppable});
    }
    Advance();
  }

  // Ends the call once what waits has been sent. From any thread; never blocks.
  void Finish(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      finished_ = true;
      status_ = std::move(status);
    }
    Advance();
  }

 private:
  struct Waiting {
    Event event;
    bool droppable;
  };

  // Makes room for one more droppable event.
  void DropOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::size_t droppable = 0;
    for (const Waiting& waiting : waiting_) droppable += waiting.droppable ? 1 : 0;
    if (droppable < kMaxWaiting) return;
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if (it->droppable) {
        waiting_.erase(it);
        return;
      }
    }
  }

  // Starts the next write, or the end, unless a write is under way. gRPC is called without the
  // lock: it may call back.
  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    bool end = false;
    absl::Status status;
    {
      absl::MutexLock lock(&mutex_);
      if (writing_ || ended_) return;
      if (!waiting_.empty()) {
        writing_ = true;
        current_ = std::move(waiting_.front().event);
        waiting_.pop_front();
      } else if (finished_) {
        end = ended_ = true;
        status = status_;
      } else {
        return;
      }
    }
    if (end) {
      grpc::ServerWriteReactor<Event>::Finish(call_.Answer(status));
    } else {
      this->StartWrite(&current_);
    }
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) {
        broken_ = true;
        waiting_.clear();
      }
    }
    if (!ok) call_.ClientGone();
    Advance();
  }

  void OnCancel() override { call_.ClientGone(); }
  void OnDone() override {
    call_.End();
    std::shared_ptr<EventStream> last = std::move(self_);
  }

  Call call_;
  std::shared_ptr<EventStream> self_;
  absl::Mutex mutex_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;    // the client no longer reads
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;     // and passed on to gRPC
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  Event current_;  // belongs to whoever set writing_
};

template <typename Event>
using EventStreamPtr = std::shared_ptr<EventStream<Event>>;

}  // namespace distorch

#endif  // SERVER_REACTORS_H_
