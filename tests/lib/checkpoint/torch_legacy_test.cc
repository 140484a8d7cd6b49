#include "lib/checkpoint/torch_legacy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "tests/lib/checkpoint/torch_golden.h"
#include "tests/support/torch_archive_writer.h"

namespace distorch {
namespace {

using pickle::Call;
using pickle::Dict;
using pickle::Global;
using pickle::Int;
using pickle::List;
using pickle::Tensor;
using pickle::Text;
using pickle::Tuple;
using pickle::Whole;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// Two tensors, the second of which is a part of a storage.
LegacyParts Good() {
  return LegacyFile(Whole(Dict({Text("w"), Tensor("0", 12, 0, {3, 4}, {4, 1}), Text("b"),
                                Tensor("1", 4, 1, {2}, {1})})),
                    {std::string(48, 'x'), "aaaabbbbccccdddd"});
}

absl::StatusOr<TensorIndex> Read(const std::string& file) {
  return ReadTorchLegacy(MemorySource(std::as_bytes(std::span(file))));
}

std::string Error(const LegacyParts& parts) {
  const absl::Status status = Read(parts.Bytes()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}
std::string Error(void (*change)(LegacyParts* parts)) {
  LegacyParts parts = Good();
  change(&parts);
  return Error(parts);
}

// --- files of torch.save(…, _use_new_zipfile_serialization=False) ---

TEST(TorchLegacyTest, ReadsAStateDict) {
  const auto file = Golden("legacy.pt");
  EXPECT_EQ(file->format(), "pytorch");
  EXPECT_EQ(file->index().Find("w")->dtype, DType::kF16);
  EXPECT_THAT(Values<uint16_t>(*file, "w"), ElementsAre(0x3C00, 0xC000, 0x3800));
}

TEST(TorchLegacyTest, ReadsALightningCheckpoint) {
  const auto file = Golden("legacy.ckpt");
  EXPECT_THAT(Names(file->index()),
              UnorderedElementsAre("model.weight", "model.tied", "model.rows", "model.turned",
                                   "model.bf16", "model.ids", "model.empty"));
  EXPECT_THAT(Values<float>(*file, "model.weight"),
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_EQ(file->index().Find("model.tied")->offset, file->index().Find("model.weight")->offset);
  EXPECT_THAT(Values<float>(*file, "model.rows"), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(Values<float>(*file, "model.turned"),
              ElementsAre(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11));
  EXPECT_THAT(Values<uint16_t>(*file, "model.bf16"), ElementsAre(0x3FC0, 0xC040));
  EXPECT_THAT(Values<int64_t>(*file, "model.ids"), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(file->index().Find("model.empty")->shape, ElementsAre(0, 3));
}

TEST(TorchLegacyTest, ReadsWhatTheWriterWrites) {
  const std::string file = Good().Bytes();
  EXPECT_TRUE(IsTorchLegacy(file.substr(0, 64)));
  const auto index = Read(file);
  ASSERT_TRUE(index.ok()) << index.status();
  const TensorInfo &w = *index->Find("w"), &b = *index->Find("b");
  EXPECT_EQ(file.substr(w.offset, w.bytes), std::string(48, 'x'));
  EXPECT_EQ(file.substr(b.offset, b.bytes), "bbbbcccc");
}

TEST(TorchLegacyTest, TakesTheBuilderOfPyTorchBefore04) {
  LegacyParts parts = Good();
  const std::string name = "_rebuild_tensor_v2";
  while (parts.object.find(name) != std::string::npos)
    parts.object.replace(parts.object.find(name), name.size(), "_rebuild_tensor");
  EXPECT_TRUE(Read(parts.Bytes()).ok());
}

TEST(TorchLegacyTest, ReadsAPickleThatIsLongerThanItsFirstPart) {
  LegacyParts parts = Good();
  parts.object =
      Whole(Dict({Text("w"), Tensor("0", 12, 0, {12}, {1}), Text("notes"),
                  Text(std::string(3 << 20, 'n')), Text("b"), Tensor("1", 4, 0, {4}, {1})}));
  const auto index = Read(parts.Bytes());
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->tensors().size(), 2u);
}

// --- malformed files ---

TEST(MalformedLegacyTest, NoTruncationIsValid) {
  const std::string file = Good().Bytes();
  for (size_t size = 0; size < file.size(); ++size)
    EXPECT_FALSE(Read(file.substr(0, size)).ok()) << size;
}

TEST(MalformedLegacyTest, RefusesAnotherNumberOrProtocol) {
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->magic[5] = 'x'; }),
              HasSubstr("does not begin with PyTorch's magic number"));
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->protocol = Whole(Int(1002)); }),
              HasSubstr("its protocol is not 1001"));
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->protocol = Whole(Text("1001")); }),
              HasSubstr("its protocol is not 1001"));
}

TEST(MalformedLegacyTest, RefusesBigEndian) {
  EXPECT_THAT(Error([](LegacyParts* parts) {
                parts->machine = Whole(Dict({Text("little_endian"), "\x89"}));
              }),
              HasSubstr("the byte order is big-endian"));
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->machine = Whole(Int(1)); }),
              HasSubstr("its third pickle is no dictionary"));
}

TEST(MalformedLegacyTest, CallsNothing) {
  const std::string call = Whole(Call(Global("os", "system"), {Text("touch /tmp/x")}));
  for (std::string LegacyParts::*const part :
       {&LegacyParts::protocol, &LegacyParts::machine, &LegacyParts::object, &LegacyParts::keys}) {
    LegacyParts parts = Good();
    parts.*part = call;
    EXPECT_THAT(Error(parts), HasSubstr("it calls 'os.system', which is not allowed"));
  }
}

TEST(MalformedLegacyTest, RefusesARootThatIsNoDictionary) {
  EXPECT_THAT(Error(LegacyFile(Whole(Int(3)), {})), HasSubstr("holds no dictionary of tensors"));
}

TEST(MalformedLegacyTest, RefusesKeysThatAreNoList) {
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->keys = Whole(Dict({})); }),
              HasSubstr("its fifth pickle is no list of storages"));
  EXPECT_THAT(Error([](LegacyParts* parts) {
                parts->keys = Whole(List({Int(0), Int(1)}));
              }),
              HasSubstr("the storage '' is there twice, or of no tensor"));
}

TEST(MalformedLegacyTest, RefusesStoragesThatAreMissingTwiceThereOrOfNoTensor) {
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->keys = Whole(List({Text("0")})); }),
              HasSubstr("no bytes for the storage '1'"));
  EXPECT_THAT(Error([](LegacyParts* parts) {
                parts->keys = Whole(List({Text("0"), Text("0")}));
                parts->storages += parts->storages;
              }),
              HasSubstr("the storage '0' is there twice"));
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->keys = Whole(List({Text("9")})); }),
              HasSubstr("the storage '9' is there twice, or of no tensor"));
}

TEST(MalformedLegacyTest, RefusesASizeThatLies) {
  EXPECT_THAT(Error([](LegacyParts* parts) { parts->storages[0] = 11; }),
              HasSubstr("the storage '0' has 11 elements; the tensors in it say 12"));
  const std::string huge = Whole(Dict({Text("w"), Tensor("0", INT32_MAX, 0, {2}, {1})}));
  LegacyParts parts = LegacyFile(huge, {std::string(48, 'x')});
  parts.storages.replace(0, 8, std::string("\xff\xff\xff\x7f\0\0\0\0", 8));
  EXPECT_THAT(Error(parts), HasSubstr("of 2147483647 elements does not end inside the file"));
}

TEST(MalformedLegacyTest, RefusesAStorageOfTwoTypesOrSizes) {
  const std::string two = Whole(
      Dict({Text("w"), Tensor("0", 12, 0, {12}, {1}), Text("b"), Tensor("0", 11, 0, {2}, {1})}));
  EXPECT_THAT(Error(LegacyFile(two, {std::string(48, 'x')})),
              HasSubstr("the storage '0' is of two types or sizes"));
}

TEST(MalformedLegacyTest, RefusesViewsOfStorages) {
  const std::string storage = Tuple({Text("storage"), Global("torch", "FloatStorage"), Text("0"),
                                     Text("cpu"), Int(12), Tuple({Text("1"), Int(0), Int(4)})}) +
                              "Q";
  EXPECT_THAT(Error(LegacyFile(Whole(Dict({Text("s"), storage})), {std::string(48, 'x')})),
              HasSubstr("a storage that is a view of another"));
}

TEST(MalformedLegacyTest, RefusesTensorsOutsideTheirStorage) {
  const std::string outside = Whole(Dict({Text("w"), Tensor("0", 12, 1, {12}, {1})}));
  EXPECT_THAT(Error(LegacyFile(outside, {std::string(48, 'x')})),
              AllOf(HasSubstr("tensor 'w'"), HasSubstr("not inside its storage of 48 bytes")));
}

}  // namespace
}  // namespace distorch
