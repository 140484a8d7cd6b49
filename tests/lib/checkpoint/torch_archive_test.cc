#include "lib/checkpoint/torch_archive.h"

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/checkpoint/checkpoint_file.h"
#include "lib/checkpoint/pickle.h"
#include "tests/lib/checkpoint/torch_golden.h"
#include "tests/support/torch_archive_writer.h"

namespace distorch {
namespace {

using pickle::Call;
using pickle::Dict;
using pickle::Global;
using pickle::Int;
using pickle::Tensor;
using pickle::Text;
using pickle::Tuple;
using pickle::Whole;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

absl::StatusOr<TensorIndex> Read(const std::string& file) {
  return ReadTorchArchive(MemorySource(std::as_bytes(std::span(file))));
}

absl::StatusOr<TensorIndex> ReadPickle(const std::string& pickle) {
  return Read(ZipBytes(ArchiveMembers(pickle, {std::string(48, 'x')})));
}

// What is said of a file, or of an archive of `pickle` and one storage of 12 floats.
std::string Error(const std::string& file) {
  const absl::Status status = Read(file).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}
std::string PickleError(const std::string& pickle) {
  return Error(ZipBytes(ArchiveMembers(pickle, {std::string(48, 'x')})));
}

// One tensor named "w" in the storage.
std::string TensorError(int32_t offset, const std::vector<int32_t>& shape,
                        const std::vector<int32_t>& strides) {
  return PickleError(Whole(Dict({Text("w"), Tensor("0", 12, offset, shape, strides)})));
}

const std::string kGood = Whole(Dict({Text("w"), Tensor("0", 12, 0, {3, 4}, {4, 1})}));

// --- files of torch.save ---

TEST(TorchArchiveTest, ReadsALightningCheckpoint) {
  const auto file = Golden("lightning.ckpt");
  EXPECT_EQ(file->format(), "pytorch");
  EXPECT_THAT(
      Names(file->index()),
      UnorderedElementsAre("model.weight", "model.tied", "model.rows", "model.half", "model.bf16",
                           "model.ids", "model.flag", "model.param", "model.empty"));
  EXPECT_THAT(Values<float>(*file, "model.weight"),
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(Values<float>(*file, "model.rows"), ElementsAre(4, 5, 6, 7, 8, 9, 10, 11));
  EXPECT_THAT(Values<uint16_t>(*file, "model.bf16"), ElementsAre(0x3FC0, 0xC040));
  EXPECT_THAT(Values<int64_t>(*file, "model.ids"), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(file->index().Find("model.tied")->offset, file->index().Find("model.weight")->offset);
  EXPECT_THAT(file->index().Find("model.weight")->shape, ElementsAre(3, 4));
  EXPECT_EQ(file->index().Find("model.half")->dtype, DType::kF16);
  EXPECT_EQ(file->index().Find("model.flag")->dtype, DType::kBool);
  EXPECT_THAT(file->index().Find("model.empty")->shape, ElementsAre(0, 3));
}

TEST(TorchArchiveTest, ReadsAPlainStateDict) {
  EXPECT_EQ(Golden("plain.pt")->index().tensors().size(), 9);
}

TEST(TorchArchiveTest, ReadsFloat8) {
  const auto file = Golden("float8.pt");
  EXPECT_EQ(file->index().Find("w8")->dtype, DType::kF8E4M3);
  EXPECT_THAT(Values<uint8_t>(*file, "w8"), ElementsAre(0x38, 0x40, 0xFE));
  EXPECT_EQ(file->index().Find("v8")->dtype, DType::kF8E5M2);
}

TEST(TorchArchiveTest, ReadsATextualInversion) {
  const auto file = Golden("embedding.pt");
  EXPECT_THAT(Values<float>(*file, "string_to_param.*"), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(Names(file->index()), UnorderedElementsAre("string_to_param.*", "string_to_token.*"));
}

TEST(TorchArchiveTest, UnwrapsADictionaryOfOneEntry) {
  EXPECT_THAT(Names(Golden("single.pth")->index()), ElementsAre("w"));
}

TEST(TorchArchiveTest, ReadsProtocol4) {
  EXPECT_EQ(Values<float>(*Golden("protocol4.bin"), "w").size(), 12);
}

TEST(TorchArchiveTest, ReadsTransposedViewsRowByRow) {
  const auto file = Golden("transposed.pt");
  EXPECT_THAT(file->index().Find("w")->shape, ElementsAre(4, 3));
  EXPECT_THAT(Values<float>(*file, "w"), ElementsAre(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11));
  std::vector<float> part(4);
  ASSERT_TRUE(file->Read(*file->index().Find("w"), 5 * sizeof(float),
                         std::as_writable_bytes(std::span(part)))
                  .ok());
  EXPECT_THAT(part, ElementsAre(9, 2, 6, 10));
}

TEST(TorchArchiveTest, FingerprintSeesNamesAndBytes) {
  const auto plain = Golden("plain.pt")->Fingerprint(), other = Golden("single.pth")->Fingerprint();
  ASSERT_TRUE(plain.ok() && other.ok());
  EXPECT_NE(*plain, *other);
}

TEST(TorchArchiveTest, ReadsWhatTheWriterWrites) {
  for (const bool zip64 : {false, true}) {
    const std::string file = ZipBytes(ArchiveMembers(kGood, {std::string(48, 'x')}), zip64);
    const auto index = Read(file);
    ASSERT_TRUE(index.ok()) << index.status();
    const TensorInfo& w = *index->Find("w");
    EXPECT_EQ(file.substr(w.offset, w.bytes), std::string(48, 'x'));
  }
}

// --- hostile pickles ---

TEST(HostilePickleTest, CallsNothing) {
  EXPECT_THAT(PickleError(Whole(Call(Global("os", "system"), {Text("touch /tmp/x")}))),
              AllOf(HasSubstr("it calls 'os.system', which is not allowed"), HasSubstr("at byte")));
  EXPECT_THAT(PickleError(Whole(Call(Global("posix", "system"), {Text("id")}))),
              HasSubstr("posix.system"));
  EXPECT_THAT(PickleError(Whole(Call(Global("builtins", "eval"), {Text("1")}))),
              HasSubstr("it calls 'builtins.eval'"));
  EXPECT_THAT(PickleError(Whole(Call(Global("torch", "load"), {Text("x")}))),
              HasSubstr("torch.load"));
  // In the middle of a good checkpoint.
  EXPECT_THAT(PickleError(Whole(Dict({Text("w"), Tensor("0", 12, 0, {12}, {1}), Text("x"),
                                      Call(Global("subprocess", "Popen"), {Text("id")})}))),
              HasSubstr("subprocess.Popen"));
}

TEST(HostilePickleTest, ResolvesNoNamesFromTheStack) {
  EXPECT_THAT(PickleError(Whole(Text("os") + Text("system") + "\x93" + Tuple({Text("id")}) + "R")),
              HasSubstr("it calls 'os.system'"));
}

TEST(HostilePickleTest, MakesNoObjects) {
  EXPECT_THAT(PickleError(Whole(Global("subprocess", "Popen") + Tuple({}) + "\x81")),
              HasSubstr("it makes an object of 'subprocess.Popen', which is not allowed"));
  EXPECT_THAT(PickleError(Whole(Global("os", "environ") + Dict({}) + "b")),
              HasSubstr("it sets the state of 'os.environ'"));
  // INST and OBJ, extensions, and protocol 0's numbers, which Python evaluates.
  for (const std::string opcode : {"ios\nsystem\n", "(cos\nsystem\no", "\x82\x01", "I1\n"}) {
    EXPECT_THAT(PickleError(Whole(opcode)), HasSubstr("is not allowed")) << opcode;
  }
}

TEST(HostilePickleTest, ANameAloneIsHarmless) {
  const auto index =
      ReadPickle(Whole(Dict({Global("pytorch_lightning.callbacks", "ModelCheckpoint"), Dict({}),
                             Text("w"), Tensor("0", 12, 0, {12}, {1})})));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_THAT(Names(*index), ElementsAre("w"));
}

TEST(HostilePickleTest, RefusesOtherProtocols) {
  EXPECT_THAT(PickleError("\x80\x06}."), HasSubstr("protocol 6; ours are 2 to 5"));
}

TEST(HostilePickleTest, RefusesWhatIsCutShort) {
  for (size_t size = 0; size < kGood.size(); ++size) {
    EXPECT_FALSE(ReadPickle(kGood.substr(0, size)).ok()) << size;
  }
}

TEST(HostilePickleTest, RefusesStackUnderflow) {
  for (const char* opcodes : {"0.", "a.", "s.", "u.", "e.", "R.", "t.", "\x85.", "2.", "q\x01.",
                              "\x94.", ".", "(s.", "(N(R.", "b.", "Q."}) {
    EXPECT_THAT(PickleError(absl::StrCat("\x80\x02", opcodes)), HasSubstr("pickle: ")) << opcodes;
  }
}

TEST(HostilePickleTest, RefusesMemoThatWasNeverWritten) {
  EXPECT_THAT(PickleError(Whole("h\x05")), HasSubstr("it recalls 5, never remembered"));
}

TEST(HostilePickleTest, MemoBombTakesNoMemory) {
  const auto index = ReadPickle(Whole("}r\xff\xff\xff\xff"));  // the highest key
  ASSERT_TRUE(index.ok()) << index.status();
  std::string puts = "}";
  for (uint32_t i = 0; i <= kMaxPickleValues; ++i) {
    puts += 'r';
    puts.append(reinterpret_cast<const char*>(&i), sizeof(i));
  }
  EXPECT_THAT(PickleError(Whole(puts)), HasSubstr("its memo is over"));
}

TEST(HostilePickleTest, ValueBombIsRefused) {
  EXPECT_THAT(PickleError(Whole(std::string(3'000'000, ']'))), HasSubstr("over 2000000 values"));
  EXPECT_THAT(PickleError(Whole(std::string(3'000'000, '('))), HasSubstr("too many marks"));
  EXPECT_THAT(PickleError(Whole("N" + std::string(3'000'000, '2'))),
              HasSubstr("its stack is over"));
}

TEST(HostilePickleTest, NestedDepthBombIsRefused) {
  std::string dicts = Dict({});
  for (int i = 0; i < 20; ++i) dicts = Dict({Text("a"), dicts, Text("b"), Int(0)});
  EXPECT_THAT(PickleError(Whole(dicts)), HasSubstr("in over 16 levels"));
  // A million lists within each other, which no reader of ours enters.
  const std::string lists = std::string(1'000'000, ']') + std::string(999'999, 'a');
  EXPECT_TRUE(ReadPickle(Whole(Dict({Text("x"), lists}))).ok());
}

TEST(HostilePickleTest, CyclesAndSharedDictionariesEnd) {
  EXPECT_THAT(PickleError(Whole("}q\x01" + Text("a") + "h\x01s" + Text("b") + "h\x01s")),
              HasSubstr("in over 16 levels"));
  std::string shared = "}q" + std::string(1, '\0');
  for (int i = 1; i < 16; ++i) {
    const std::string get = std::string("h") + static_cast<char>(i - 1);
    shared += "}(";
    for (const char* key : {"a", "b", "c", "d", "e"}) shared += Text(key) + get;
    shared += std::string("uq") + static_cast<char>(i);
  }
  EXPECT_THAT(PickleError(Whole(shared)), HasSubstr("entries in its dictionaries"));
}

TEST(HostilePickleTest, LongSharedNamesAreRefused) {
  const std::string name(1000, 'n');
  EXPECT_THAT(PickleError(Whole(Text(name) + Text(name) + "\x93")), HasSubstr("a long name"));
}

TEST(HostilePickleTest, RefusesADuplicateName) {
  const std::string tensor = Tensor("0", 12, 0, {12}, {1});
  EXPECT_THAT(PickleError(Whole(Dict({Text("a.b"), tensor, Text("a"), Dict({Text("b"), tensor})}))),
              HasSubstr("duplicate name 'a.b'"));
}

TEST(HostilePickleTest, RefusesARootThatIsNoDictionary) {
  EXPECT_THAT(PickleError(Whole(Int(3))), HasSubstr("holds no dictionary of tensors"));
}

// --- tensors ---

TEST(TorchArchiveTest, RefusesTensorsOutsideTheirStorage) {
  EXPECT_THAT(TensorError(0, {13}, {1}), HasSubstr("not inside its storage of 48 bytes"));
  EXPECT_THAT(TensorError(1, {12}, {1}), HasSubstr("48 bytes from element 1 on"));
  EXPECT_THAT(TensorError(INT32_MAX, {}, {}), HasSubstr("not inside its storage"));
  EXPECT_THAT(TensorError(0, {1 << 30, 1 << 30, 1 << 30}, {1, 1, 1}), HasSubstr("overflows"));
  EXPECT_THAT(TensorError(0, {1 << 30, 1 << 30, 1 << 30, 0}, {1, 1, 1, 1}), HasSubstr("overflows"));
}

TEST(TorchArchiveTest, RefusesViewsThatRepeatElementsOrLeaveTheirStorage) {
  EXPECT_THAT(TensorError(0, {1000, 1000}, {0, 0}), HasSubstr("lie on each other"));
  EXPECT_THAT(TensorError(0, {3, 3}, {1, 1}), HasSubstr("strides [1, 1]; elements that lie on"));
  EXPECT_THAT(TensorError(0, {3, 4}, {1, 4}), HasSubstr("60 bytes from element 0 on"));
  EXPECT_THAT(TensorError(2, {3, 4}, {1, 3}), HasSubstr("not inside its storage"));
  EXPECT_THAT(TensorError(0, {3, 4}, {INT32_MAX, INT32_MAX}), HasSubstr("not inside its storage"));
}

TEST(TorchArchiveTest, ViewsKeepTheirStridesButForDimensionsOfOne) {
  const auto strides = [](const std::vector<int32_t>& shape, const std::vector<int32_t>& strides) {
    const auto index = ReadPickle(Whole(Dict({Text("w"), Tensor("0", 12, 0, shape, strides)})));
    EXPECT_TRUE(index.ok()) << index.status();
    return index.ok() ? index->Find("w")->strides : std::vector<int64_t>{-1};
  };
  EXPECT_THAT(strides({3, 4}, {4, 1}), ElementsAre());
  EXPECT_THAT(strides({3, 4}, {1, 3}), ElementsAre(1, 3));
  EXPECT_THAT(strides({2, 1, 3}, {4, INT32_MAX, 1}), ElementsAre(4, 0, 1));
  EXPECT_THAT(strides({1, 12}, {INT32_MAX, 1}), ElementsAre());
}

TEST(TorchArchiveTest, RefusesMalformedTensors) {
  EXPECT_THAT(TensorError(-1, {2}, {1}), HasSubstr("without an offset"));
  EXPECT_THAT(TensorError(0, {-2}, {1}), HasSubstr("are no sizes"));
  EXPECT_THAT(TensorError(0, {2}, {1, 1}), HasSubstr("strides"));
  EXPECT_THAT(TensorError(0, std::vector<int32_t>(65, 1), std::vector<int32_t>(65, 1)),
              HasSubstr("over 64 dimensions"));
  EXPECT_THAT(PickleError(Whole(Call(Global("torch._utils", "_rebuild_tensor_v2"), {}))),
              HasSubstr("without a storage"));
  EXPECT_THAT(PickleError(Whole(Tuple({Text("storage"), Global("torch", "ComplexFloatStorage"),
                                       Text("0"), Text("cpu"), Int(1)}) +
                                "Q")),
              HasSubstr("type 'torch.ComplexFloatStorage'"));
}

// --- hostile archives ---

TEST(HostileZipTest, RefusesAMissingEntry) {
  EXPECT_THAT(Error(ZipBytes(ArchiveMembers(kGood, {}))),
              HasSubstr("no entry for the storage '0'"));
  EXPECT_THAT(Error(ZipBytes({{"readme.txt", "hello"}})), HasSubstr("no entry data.pkl"));
}

TEST(HostileZipTest, RefusesACompressedEntry) {
  auto members = ArchiveMembers(kGood, {std::string(48, 'x')});
  members[1].method = 8;
  members[1].size = uint64_t{1} << 31;  // a bomb, were it inflated
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("entry 'archive/data/0' is compressed"));
  members = ArchiveMembers(kGood, {std::string(48, 'x')});
  members[0].method = 8;
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("entry 'archive/data.pkl' is compressed"));
}

TEST(HostileZipTest, RefusesAnEncryptedEntry) {
  auto members = ArchiveMembers(kGood, {std::string(48, 'x')});
  members[1].flags = 1;
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("is encrypted"));
}

TEST(HostileZipTest, NoTruncationIsValid) {
  for (const bool zip64 : {false, true}) {
    const std::string file = ZipBytes(ArchiveMembers(kGood, {std::string(48, 'x')}), zip64);
    for (size_t size = 0; size < file.size(); ++size) {
      EXPECT_FALSE(Read(file.substr(0, size)).ok()) << size;
    }
    EXPECT_THAT(Error(file.substr(0, file.size() - 1)), HasSubstr("the file is truncated"));
  }
}

TEST(HostileZipTest, RefusesOverlappingEntries) {
  const std::string pickle = Whole(
      Dict({Text("a"), Tensor("0", 12, 0, {12}, {1}), Text("b"), Tensor("1", 4, 0, {4}, {1})}));
  auto members = ArchiveMembers(pickle, {std::string(48, 'x'), std::string(48, 'y')});
  // A member's header within the data of another.
  const std::string inner("PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0e\0\0\0", 30);
  const std::string name = "archive/data/1";
  members[1].data = inner + name + std::string(16, 'z');
  members[2].data.clear();
  const std::string file = ZipBytes(members);
  members[2].header_offset = file.find(inner);
  members[2].size = 16;
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("the storages '0' and '1' overlap"));
}

TEST(HostileZipTest, RefusesEntriesThatLie) {
  const auto with = [](auto change) {
    auto members = ArchiveMembers(kGood, {std::string(48, 'x')});
    change(&members[1]);
    return Error(ZipBytes(members));
  };
  EXPECT_THAT(with([](ZipMember* m) { m->size = 1000; }), HasSubstr("does not end before"));
  EXPECT_THAT(with([](ZipMember* m) { m->header_offset = 1; }), HasSubstr("no local header"));
  EXPECT_THAT(with([](ZipMember* m) { m->header_offset = 1 << 30; }), HasSubstr("begins past"));
  EXPECT_THAT(with([](ZipMember* m) { m->local_name = "archive/data/9"; }),
              HasSubstr("no local header of its own"));
}

TEST(HostileZipTest, RefusesDuplicateEntries) {
  auto members = ArchiveMembers(kGood, {std::string(48, 'x'), ""});
  members[2].name = members[1].name;
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("duplicate entry 'archive/data/0'"));
}

TEST(HostileZipTest, RefusesBigEndian) {
  auto members = ArchiveMembers(kGood, {std::string(48, 'x')});
  members.push_back({"archive/byteorder", "big"});
  EXPECT_THAT(Error(ZipBytes(members)), HasSubstr("the byte order is 'big'"));
}

TEST(HostileZipTest, RefusesCountsPastTheDirectory) {
  std::string file = ZipBytes(ArchiveMembers(kGood, {std::string(48, 'x')}));
  file[file.size() - 12] = '\xf0';  // the number of entries
  EXPECT_THAT(Error(file), HasSubstr("do not fit a directory"));
}

}  // namespace
}  // namespace distorch
