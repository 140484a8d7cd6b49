#include "client/ctl/json.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "proto/distorch.pb.h"

namespace distorch::ctl {
namespace {

TEST(ToJsonTest, EveryFieldUnderItsProtoNameIn64Bits) {
  v1::DeviceBytes device;
  device.set_planned_bytes(std::numeric_limits<int64_t>::max());
  EXPECT_EQ(ToJson(device).dump(),
            R"({"device":"","planned_bytes":9223372036854775807,"measured_bytes":0,"blocks":0})");
  v1::SamplingOptions options;
  options.set_seed(std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(ToJson(options)["seed"], std::numeric_limits<uint64_t>::max());
}

TEST(ToJsonTest, ListsAreThereWhenEmptyMessagesAndOptionalsOnlyWhenSet) {
  v1::PlanCheckpointResponse plan;
  EXPECT_EQ(ToJson(plan).dump(), R"({"family":"","fits":false,"reason":""})");
  plan.mutable_placement();
  EXPECT_EQ(ToJson(plan)["placement"].dump(), R"({"components":[]})");
  v1::LoadCheckpointRequest request;
  EXPECT_EQ(ToJson(request).dump(), R"({"ckpt_name":""})");
  request.set_eject_models(false);
  request.set_unet_virtual_vram_gb(0);
  EXPECT_EQ(ToJson(request).dump(),
            R"({"ckpt_name":"","unet_virtual_vram_gb":0.0,"eject_models":false})");
}

TEST(ToJsonTest, MapsAreObjectsInOneOrder) {
  v1::LoadCheckpointResponse response;
  for (const char* phase : {"weights", "detect", "open"}) {
    (*response.mutable_phase_seconds())[phase] = 0.5;
  }
  EXPECT_EQ(ToJson(response)["phase_seconds"].dump(), R"({"detect":0.5,"open":0.5,"weights":0.5})");
}

TEST(ToJsonTest, TensorsShowDtypeAndShapeButNoData) {
  v1::Conditioning conditioning;
  v1::Tensor& tensor = *conditioning.mutable_cross_attention();
  tensor.set_dtype(v1::FLOAT32);
  tensor.add_shape(1);
  tensor.add_shape(77);
  tensor.set_data("\xff\xfe");
  EXPECT_EQ(ToJson(conditioning).dump(),
            R"({"cross_attention":{"dtype":"FLOAT32","shape":[1,77]}})");
}

TEST(ToJsonTest, RepeatedScalarsAndMessages) {
  v1::ApplyLoraResponse lora;
  lora.add_unmatched_keys("a\"b");
  EXPECT_EQ(ToJson(lora)["unmatched_keys"].dump(), R"(["a\"b"])");
  v1::UnloadResponse receipt;
  receipt.add_freed()->set_bytes(7);
  EXPECT_EQ(ToJson(receipt).dump(), R"({"freed":[{"device":"","bytes":7}],"handles_closed":0})");
}

}  // namespace
}  // namespace distorch::ctl
