#include "lib/base/sha256.h"

#include <string>

#include "gtest/gtest.h"

namespace distorch {
namespace {

// The examples of FIPS 180-4's companion document.
TEST(Sha256Test, MatchesTheStandardsExamples) {
  Sha256 abc;
  abc.Update("abc");
  EXPECT_EQ(abc.HexDigest().value(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().HexDigest().value(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256Test, PiecesHashAsTheWhole) {
  Sha256 pieces;
  for (int i = 0; i < 1000; ++i) pieces.Update(std::string(1000, 'a'));
  EXPECT_EQ(pieces.HexDigest().value(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace distorch
