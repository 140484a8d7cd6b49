// The handles of a daemon, in a file that outlives it: SQLite in --state_dir.
//
// The file is in WAL mode with synchronous=NORMAL: what was written is there after the process is
// killed at any point, and after a power failure the file is whole and at worst misses the last
// changes, which clients can make again: their handles are named by content. A second daemon is
// kept out of the file.
#ifndef LIB_SERVING_STATE_STORE_H_
#define LIB_SERVING_STATE_STORE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "lib/serving/observer.h"
#include "lib/serving/stored_handle.h"

struct sqlite3;

namespace distorch {

// Thread-safe.
class StateStore {
 public:
  // Opens or makes `folder`/state.db. A file that is none, or broken, is set aside with a warning
  // to `observer`, which outlives the store. FAILED_PRECONDITION for a file of a newer daemon, or
  // one that another daemon uses; else what the file system says.
  static absl::StatusOr<std::unique_ptr<StateStore>> Open(const std::string& folder,
                                                          Observer* observer);
  ~StateStore();
  StateStore(const StateStore&) = delete;
  StateStore& operator=(const StateStore&) = delete;

  // All that is stored; rows that make no sense are left out, with a warning.
  std::vector<StoredHandle> All() ABSL_LOCKS_EXCLUDED(mutex_);
  // In the file when they return. What cannot be written (a full disk) is a warning: the daemon
  // serves on, and will not know of it after a restart.
  void Put(const StoredHandle& stored) ABSL_LOCKS_EXCLUDED(mutex_);
  void Remove(const std::vector<std::string>& handles) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Closer {
    void operator()(sqlite3* db) const;
  };
  using Db = std::unique_ptr<sqlite3, Closer>;

  StateStore(std::string path, Db db, Observer* observer);
  static absl::StatusOr<Db> OpenFile(const std::string& path);
  // Runs `sql` with its parameters, once for each of `rows`, all or none.
  absl::Status Write(const char* sql, const std::vector<std::vector<std::string>>& rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WarnUnless(const absl::Status& status) const;

  const std::string path_;
  Observer* const observer_;
  absl::Mutex mutex_;
  const Db db_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace distorch

#endif  // LIB_SERVING_STATE_STORE_H_
