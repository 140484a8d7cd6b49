#include "lib/serving/state_store.h"

#include <sqlite3.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "lib/base/status_macros.h"

namespace distorch {
namespace {

constexpr int kSchema = 1;
constexpr char kFile[] = "state.db";

struct Finalizer {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalizer>;

absl::Status ErrorOf(sqlite3* db, int code) {
  const std::string message = sqlite3_errmsg(db);
  switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return absl::DataLossError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::FailedPreconditionError("another daemon uses it");
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::Status Execute(sqlite3* db, const char* sql) {
  const int code = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(db, code);
}

absl::StatusOr<Statement> Prepare(sqlite3* db, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(db, sql, -1, &statement, nullptr);
  if (code != SQLITE_OK) return ErrorOf(db, code);
  return Statement(statement);
}

absl::StatusOr<std::vector<std::string>> FirstColumn(sqlite3* db, const char* sql) {
  ASSIGN_OR_RETURN(const Statement statement, Prepare(db, sql));
  std::vector<std::string> values;
  int code = 0;
  while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement.get(), 0));
    values.emplace_back(text == nullptr ? "" : text);
  }
  if (code != SQLITE_DONE) return ErrorOf(db, code);
  return values;
}

// `path` and what SQLite keeps beside it, under a name with the time.
absl::Status SetAside(const std::string& path) {
  const std::string aside = absl::StrCat(
      path, ".broken-", absl::FormatTime("%Y%m%dT%H%M%S", absl::Now(), absl::UTCTimeZone()));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::error_code error;
    std::filesystem::rename(path + suffix, aside + suffix, error);
    if (error && error != std::errc::no_such_file_or_directory) {
      return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot rename ", path, suffix));
    }
  }
  return absl::OkStatus();
}

}  // namespace

void StateStore::Closer::operator()(sqlite3* db) const { sqlite3_close(db); }

StateStore::StateStore(std::string path, Db db, Observer* observer)
    : path_(std::move(path)), observer_(observer), db_(std::move(db)) {}

StateStore::~StateStore() = default;

absl::StatusOr<StateStore::Db> StateStore::OpenFile(const std::string& path) {
  sqlite3* opened = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &opened,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  Db db(opened);
  if (code != SQLITE_OK) return ErrorOf(opened, code);
  RETURN_IF_ERROR(Execute(opened, "PRAGMA locking_mode=EXCLUSIVE"));
  RETURN_IF_ERROR(Execute(opened, "PRAGMA journal_mode=WAL"));
  RETURN_IF_ERROR(Execute(opened, "PRAGMA synchronous=NORMAL"));
  ASSIGN_OR_RETURN(const std::vector<std::string> checked,
                   FirstColumn(opened, "PRAGMA quick_check(1)"));
  if (checked != std::vector<std::string>{"ok"})
    return absl::DataLossError(checked.empty() ? "unreadable" : checked.front());
  ASSIGN_OR_RETURN(const std::vector<std::string> version,
                   FirstColumn(opened, "PRAGMA user_version"));
  const std::string known = absl::StrCat(kSchema);
  if (version.front() != "0" && version.front() != known) {
    return absl::FailedPreconditionError(
        absl::StrCat("it was written by another version of distorchd (schema ", version.front(),
                     ", this one knows ", known, ")"));
  }
  // Also takes the lock, so that a second daemon learns of the first.
  RETURN_IF_ERROR(Execute(opened, "BEGIN IMMEDIATE"));
  RETURN_IF_ERROR(Execute(opened,
                          "CREATE TABLE IF NOT EXISTS handles("
                          "handle TEXT PRIMARY KEY, recipe TEXT NOT NULL) STRICT, WITHOUT ROWID"));
  RETURN_IF_ERROR(Execute(opened, absl::StrCat("PRAGMA user_version=", kSchema).c_str()));
  RETURN_IF_ERROR(Execute(opened, "COMMIT"));
  RETURN_IF_ERROR(FirstColumn(opened, "SELECT recipe FROM handles LIMIT 1").status());
  return db;
}

absl::StatusOr<std::unique_ptr<StateStore>> StateStore::Open(const std::string& folder,
                                                             Observer* observer) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return absl::ErrnoToStatus(error.value(), absl::StrCat("--state_dir: cannot make ", folder));
  const std::string path = (std::filesystem::path(folder) / kFile).string();
  absl::StatusOr<Db> db = OpenFile(path);
  if (absl::IsDataLoss(db.status())) {
    observer->Warning(absl::StrCat(path, " is broken (", db.status().message(),
                                   "): it is set aside, and no handle is known any more"));
    RETURN_IF_ERROR(SetAside(path));
    db = OpenFile(path);
  }
  if (!db.ok()) {
    return absl::Status(db.status().code(),
                        absl::StrCat("--state_dir: ", path, ": ", db.status().message()));
  }
  return std::unique_ptr<StateStore>(new StateStore(path, *std::move(db), observer));
}

void StateStore::WarnUnless(const absl::Status& status) const {
  if (!status.ok()) observer_->Warning(absl::StrCat(path_, ": ", status.message()));
}

std::vector<StoredHandle> StateStore::All() {
  absl::MutexLock lock(&mutex_);
  const auto recipes = FirstColumn(db_.get(), "SELECT recipe FROM handles ORDER BY handle");
  WarnUnless(recipes.status());
  std::vector<StoredHandle> all;
  if (!recipes.ok()) return all;
  for (const std::string& recipe : *recipes) {
    absl::StatusOr<StoredHandle> stored = StoredHandleFromJson(recipe);
    WarnUnless(stored.status());
    if (stored.ok()) all.push_back(*std::move(stored));
  }
  return all;
}

absl::Status StateStore::Write(const char* sql, const std::vector<std::vector<std::string>>& rows) {
  ASSIGN_OR_RETURN(const Statement statement, Prepare(db_.get(), sql));
  RETURN_IF_ERROR(Execute(db_.get(), "BEGIN IMMEDIATE"));
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      sqlite3_bind_text(statement.get(), static_cast<int>(i) + 1, row[i].data(),
                        static_cast<int>(row[i].size()), SQLITE_STATIC);
    }
    if (const int code = sqlite3_step(statement.get()); code != SQLITE_DONE) {
      const absl::Status failed = ErrorOf(db_.get(), code);
      sqlite3_reset(statement.get());
      Execute(db_.get(), "ROLLBACK").IgnoreError();
      return failed;
    }
    sqlite3_reset(statement.get());
  }
  return Execute(db_.get(), "COMMIT");
}

void StateStore::Put(const StoredHandle& stored) {
  absl::MutexLock lock(&mutex_);
  WarnUnless(Write("INSERT OR REPLACE INTO handles(handle, recipe) VALUES(?, ?)",
                   {{stored.handle, ToJson(stored)}}));
}

void StateStore::Remove(const std::vector<std::string>& handles) {
  std::vector<std::vector<std::string>> rows;
  for (const std::string& handle : handles) rows.push_back({handle});
  absl::MutexLock lock(&mutex_);
  WarnUnless(Write("DELETE FROM handles WHERE handle = ?", rows));
}

}  // namespace distorch
