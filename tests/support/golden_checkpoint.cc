#include "tests/support/golden_checkpoint.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "lib/base/mapped_file.h"
#include "lib/base/sha256.h"
#include "lib/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "tests/support/safetensors_writer.h"

namespace distorch {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr uint64_t kChunkElements = 1 << 20;

// How the elements of one tensor are made; see weights.py.
struct Recipe {
  SafetensorsEntry entry;
  bool arange = false;
  bool constant = false;
  float value = 0;
  uint64_t base = 0;
  float amplitude = 0;
  float offset = 0;

  uint64_t elements() const { return entry.bytes() / DTypeSize(entry.dtype); }
};

struct Manifest {
  std::vector<Recipe> recipes;  // in file order
  SafetensorsMetadata metadata;
  std::string sha256;
};

uint64_t SplitMix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

float Element(const Recipe& recipe, uint64_t i) {
  if (recipe.arange) return static_cast<float>(i);
  if (recipe.constant) return recipe.value;
  const float u = static_cast<float>(SplitMix64(recipe.base + i) >> 40) * 0x1p-24F;
  return recipe.offset + (u * 2.0F - 1.0F) * recipe.amplitude;
}

// IEEE 754 binary16, to nearest even, of a finite value in its range.
uint16_t ToF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude < 0x38800000) {
    // A subnormal half: the float addition of 0.5 puts its last place where float rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000));
  }
  magnitude += 0xFFF + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000) >> 13));
}

uint16_t ToBF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

template <typename T, typename Convert>
void Fill(const Recipe& recipe, uint64_t begin, std::span<std::byte> out, Convert convert) {
  for (uint64_t i = 0; i < out.size() / sizeof(T); ++i) {
    const T element = convert(Element(recipe, begin + i));
    std::memcpy(out.data() + i * sizeof(T), &element, sizeof(T));
  }
}

// Elements of `recipe` from `begin` on. The dtype is one that ParseRecipe lets through.
void Make(const Recipe& recipe, uint64_t begin, std::span<std::byte> out) {
  switch (recipe.entry.dtype) {
    case DType::kF16:
      return Fill<uint16_t>(recipe, begin, out, ToF16);
    case DType::kBF16:
      return Fill<uint16_t>(recipe, begin, out, ToBF16);
    case DType::kI64:
      return Fill<int64_t>(recipe, begin, out, [](float x) { return static_cast<int64_t>(x); });
    default:
      return Fill<float>(recipe, begin, out, [](float x) { return x; });
  }
}

// The order in which the safetensors library writes: wider types first.
int FileRank(DType dtype) {
  switch (dtype) {
    case DType::kI64:
      return 0;
    case DType::kF32:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kF16:
      return 3;
    default:
      return -1;
  }
}

absl::StatusOr<Recipe> ParseRecipe(const std::string& name, const Json& description, uint64_t seed,
                                   double gain) {
  const std::optional<DType> dtype = ParseDType(description["dtype"].get<std::string>());
  if (!dtype || FileRank(*dtype) < 0) {
    return absl::UnimplementedError(absl::StrCat("the dtype of ", name));
  }
  Recipe recipe;
  recipe.entry = {name, *dtype, description["shape"].get<std::vector<int64_t>>(), ""};
  recipe.arange = description.contains("arange");
  recipe.constant = description.contains("value");
  recipe.value = description.value("value", 0.0F);
  const auto* bytes = reinterpret_cast<const Bytef*>(name.data());
  recipe.base = ((crc32(0, bytes, static_cast<uInt>(name.size())) ^ seed) & 0xFFFFFFFF) << 32;
  const std::vector<int64_t>& shape = recipe.entry.shape;
  if (shape.size() >= 2) {
    double fan_in = 1;
    for (std::size_t i = 1; i < shape.size(); ++i) fan_in *= static_cast<double>(shape[i]);
    recipe.amplitude = static_cast<float>(std::sqrt(3.0 / fan_in) * gain);
  } else if (absl::EndsWith(name, ".weight") || absl::EndsWith(name, ".scale")) {
    recipe.amplitude = 0.2F;
    recipe.offset = 1.0F;
  } else {
    recipe.amplitude = 0.05F;
  }
  recipe.amplitude = description.value("amplitude", recipe.amplitude);
  return recipe;
}

absl::StatusOr<Manifest> ReadManifest(const std::string& path) {
  std::ifstream file(path);
  const Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("tensors")) {
    return absl::NotFoundError(absl::StrCat("no manifest ", path));
  }
  Manifest manifest;
  manifest.sha256 = json["sha256"];
  manifest.metadata = json.value("metadata", SafetensorsMetadata{{"format", "pt"}});
  for (const auto& [name, description] : json["tensors"].items()) {
    ASSIGN_OR_RETURN(Recipe recipe, ParseRecipe(name, description, json["seed"], json["gain"]));
    manifest.recipes.push_back(std::move(recipe));
  }
  std::sort(manifest.recipes.begin(), manifest.recipes.end(), [](const Recipe& a, const Recipe& b) {
    return std::pair(FileRank(a.entry.dtype), a.entry.name) <
           std::pair(FileRank(b.entry.dtype), b.entry.name);
  });
  return manifest;
}

absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "cannot write a checkpoint");
    const auto done = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
    offset += done;
    bytes = bytes.subspan(done);
  }
  return absl::OkStatus();
}

struct Chunk {
  const Recipe* recipe;
  uint64_t first_element;
  uint64_t elements;
  uint64_t file_offset;
};

std::vector<Chunk> SplitIntoChunks(const std::vector<Recipe>& recipes, uint64_t data_start) {
  std::vector<Chunk> chunks;
  uint64_t offset = data_start;
  for (const Recipe& recipe : recipes) {
    for (uint64_t first = 0; first < recipe.elements(); first += kChunkElements) {
      const uint64_t elements = std::min(kChunkElements, recipe.elements() - first);
      chunks.push_back({&recipe, first, elements, offset});
      offset += elements * DTypeSize(recipe.entry.dtype);
    }
  }
  return chunks;
}

absl::Status WriteChunks(int fd, const std::vector<Chunk>& chunks) {
  std::atomic<std::size_t> next = 0;
  absl::Mutex mutex;
  absl::Status failure;
  const auto work = [&] {
    std::vector<std::byte> buffer;
    for (std::size_t i; (i = next++) < chunks.size();) {
      const Chunk& chunk = chunks[i];
      buffer.resize(chunk.elements * DTypeSize(chunk.recipe->entry.dtype));
      Make(*chunk.recipe, chunk.first_element, buffer);
      absl::Status status = WriteAt(fd, chunk.file_offset, buffer);
      absl::MutexLock lock(&mutex);
      failure.Update(status);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i)
      threads.emplace_back(work);
  }
  return failure;
}

absl::Status WriteCheckpoint(const Manifest& manifest, const std::string& path) {
  std::vector<SafetensorsEntry> entries;
  for (const Recipe& recipe : manifest.recipes) entries.push_back(recipe.entry);
  RETURN_IF_ERROR(WriteSafetensors(path, entries, manifest.metadata));
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot open a checkpoint to write");
  const absl::Cleanup close_file = [fd] { close(fd); };
  const uint64_t data_start = SafetensorsHeaderBytes(entries, manifest.metadata).size();
  return WriteChunks(fd, SplitIntoChunks(manifest.recipes, data_start));
}

absl::StatusOr<std::string> FileSha256(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  Sha256 hash;
  hash.Update(file.bytes());
  return hash.HexDigest();
}

}  // namespace

absl::StatusOr<std::string> GoldenCheckpoint(const std::string& golden_dir,
                                             const std::string& family,
                                             const std::string& cache_dir) {
  ASSIGN_OR_RETURN(const Manifest manifest,
                   ReadManifest(golden_dir + "/" + family + "/manifest.json"));
  // A changed manifest makes a new name; a file gets its name only when it is whole.
  const std::string path =
      absl::StrCat(cache_dir, "/", family, "-", manifest.sha256.substr(0, 12), ".safetensors");
  std::error_code error;
  if (fs::exists(path, error)) return path;
  fs::create_directories(cache_dir, error);
  const std::string partial = absl::StrCat(path, ".", getpid(), ".partial");
  absl::Cleanup remove_partial = [&partial] { unlink(partial.c_str()); };
  RETURN_IF_ERROR(WriteCheckpoint(manifest, partial));
  ASSIGN_OR_RETURN(const std::string sha256, FileSha256(partial));
  if (sha256 != manifest.sha256) {
    return absl::DataLossError(absl::StrCat("the golden checkpoint ", family, " came out as ",
                                            sha256, ", not ", manifest.sha256));
  }
  fs::rename(partial, path, error);
  if (error) return absl::UnknownError(absl::StrCat("cannot name ", path, ": ", error.message()));
  return path;
}

}  // namespace distorch
