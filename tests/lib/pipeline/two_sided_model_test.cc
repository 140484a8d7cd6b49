// Spreading a batch over devices: who computes which items, and that it changes nothing. The model
// is elementwise, so that any split has the same bits.
#include "lib/pipeline/two_sided_model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "lib/base/torch_status.h"

namespace distorch::pipeline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const NamedTensors kNoTensors;

// Denoised is x plus its item's context. Counts the items of each evaluation.
class FakeModel : public models::DiffusionModel {
 public:
  explicit FakeModel(bool context_may_repeat = true)
      : DiffusionModel(&kNoTensors, models::Sd1LatentFormat(), sampling::ModelSampling({})),
        context_may_repeat_(context_may_repeat) {}
  int64_t context_width() const override { return 1; }
  int64_t concat_channels() const override { return 0; }
  bool context_may_repeat() const override { return context_may_repeat_; }
  at::Tensor Denoise(const at::Tensor& x, double sigma,
                     const text::Conditioning& conditioning) const override {
    const int64_t batch = conditioning.cross_attention.size(0);
    TORCH_CHECK(batch == 1 || batch == x.size(0), "a context of ", batch, " for ", x.size(0));
    {
      absl::MutexLock lock(&mutex_);
      items_.push_back(x.size(0));
    }
    TORCH_CHECK_WITH(OutOfMemoryError, !short_of_memory, "no memory");
    TORCH_CHECK(!broken, "broken");
    return x * sigma + conditioning.cross_attention.select(1, 0).reshape({-1, 1, 1, 1});
  }
  std::vector<int64_t> TakeItems() const {
    absl::MutexLock lock(&mutex_);
    return std::exchange(items_, {});
  }

  bool short_of_memory = false, broken = false;

 private:
  const bool context_may_repeat_;
  mutable absl::Mutex mutex_;
  mutable std::vector<int64_t> items_ ABSL_GUARDED_BY(mutex_);
};

text::Conditioning Context(const std::vector<float>& items, int64_t tokens = 2) {
  text::Conditioning conditioning;
  conditioning.cross_attention =
      at::tensor(items).reshape({-1, 1, 1}).repeat({1, tokens, 1}).contiguous();
  return conditioning;
}

class TwoSidedModelTest : public testing::Test {
 protected:
  ~TwoSidedModelTest() override {
    for (std::thread& thread : threads_) thread.join();
  }

  // One more device; not `idle`: it never comes.
  FakeModel& AddMate(bool idle = true) {
    mates_.push_back(std::make_unique<FakeModel>());
    Teammate mate;
    mate.model = mates_.back().get();
    mate.try_run = [this, idle](absl::AnyInvocable<void()> job) {
      if (idle) threads_.emplace_back(std::move(job));
      return idle;
    };
    team_.mates.push_back(std::move(mate));
    return *mates_.back();
  }
  std::unique_ptr<TwoSidedModel> Create(const Team& team, const text::Conditioning& positive,
                                        const text::Conditioning& negative, const at::Tensor& x) {
    auto model = TwoSidedModel::Create(self_, team, positive, negative, x.sizes(), cancel_);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  // Alone, then with the team.
  void ExpectTheSame(int64_t batch, const text::Conditioning& positive,
                     const text::Conditioning& negative) {
    const at::Tensor x = at::arange(batch * 4 * 2 * 2, at::kFloat).reshape({batch, 4, 2, 2});
    const Team nobody;  // referred to
    const auto expected = (*Create(nobody, positive, negative, x))(x, 0.7, true);
    ASSERT_TRUE(expected.ok()) << expected.status();
    self_.TakeItems();
    const auto actual = (*Create(team_, positive, negative, x))(x, 0.7, true);
    ASSERT_TRUE(actual.ok()) << actual.status();
    EXPECT_TRUE(at::equal(actual->cond, expected->cond));
    EXPECT_TRUE(at::equal(actual->uncond, expected->uncond));
    EXPECT_FALSE(at::equal(actual->cond, actual->uncond));
  }

  FakeModel self_;
  std::vector<std::unique_ptr<FakeModel>> mates_;
  Team team_;
  CancelToken cancel_;
  std::vector<std::thread> threads_;
};

TEST_F(TwoSidedModelTest, TheHalvesOfTheGuidanceGoToTwoDevices) {
  const FakeModel& mate = AddMate();
  ExpectTheSame(1, Context({1}), Context({2}));
  EXPECT_THAT(self_.TakeItems(), ElementsAre(1));
  EXPECT_THAT(mate.TakeItems(), ElementsAre(1));
}

TEST_F(TwoSidedModelTest, TheBatchGoesToAllDevicesInEqualShares) {
  const FakeModel &first = AddMate(), &second = AddMate();
  ExpectTheSame(3, Context({1, 2, 3}), Context({4}));
  EXPECT_THAT(self_.TakeItems(), ElementsAre(2));
  EXPECT_THAT(first.TakeItems(), ElementsAre(2));
  EXPECT_THAT(second.TakeItems(), ElementsAre(2));
}

TEST_F(TwoSidedModelTest, HalvesThatCannotShareABatchAreSpreadToo) {
  FakeModel strict(/*context_may_repeat=*/false);
  const FakeModel& mate = AddMate();
  const at::Tensor x = at::ones({3, 4, 2, 2});
  const auto model = TwoSidedModel::Create(strict, team_, Context({1, 2, 3}, 2), Context({4}, 3),
                                           x.sizes(), cancel_);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto predictions = (**model)(x, 1, true);
  ASSERT_TRUE(predictions.ok()) << predictions.status();
  EXPECT_TRUE(at::equal(predictions->cond.select(1, 0).select(1, 0).select(1, 0),
                        at::tensor({2.0f, 3.0f, 4.0f})));
  EXPECT_TRUE(at::equal(predictions->uncond, at::full_like(x, 5)));
  // All three of the first half; then, the other device has all of the second.
  EXPECT_THAT(strict.TakeItems(), ElementsAre(3));
  EXPECT_THAT(mate.TakeItems(), ElementsAre(3));
}

TEST_F(TwoSidedModelTest, ThereAreNeverMoreSharesThanItems) {
  const FakeModel &first = AddMate(), &second = AddMate();
  ExpectTheSame(1, Context({1}), Context({2}));
  EXPECT_THAT(first.TakeItems(), ElementsAre(1));
  EXPECT_THAT(second.TakeItems(), IsEmpty());
  const at::Tensor x = at::ones({1, 4, 2, 2});
  const auto model = Create(team_, Context({1}), Context({2}), x);
  self_.TakeItems();
  ASSERT_TRUE((*model)(x, 1, /*with_uncond=*/false).ok());
  EXPECT_THAT(self_.TakeItems(), ElementsAre(1));
  EXPECT_THAT(first.TakeItems(), IsEmpty());
}

TEST_F(TwoSidedModelTest, ABusyDeviceIsNotWaitedFor) {
  const FakeModel &busy = AddMate(/*idle=*/false), &idle = AddMate();
  ExpectTheSame(2, Context({1}), Context({2}));
  // Its share is computed as a share all the same.
  EXPECT_THAT(busy.TakeItems(), IsEmpty());
  EXPECT_THAT(self_.TakeItems(), ElementsAre(1, 1));
  EXPECT_THAT(idle.TakeItems(), ElementsAre(2));
}

TEST_F(TwoSidedModelTest, ADeviceShortOfMemoryIsLeftOut) {
  FakeModel& mate = AddMate();
  mate.short_of_memory = true;
  std::vector<std::string> warnings;
  team_.warn = [&](std::string_view message) { warnings.emplace_back(message); };
  const at::Tensor x = at::ones({1, 4, 2, 2});
  const auto model = Create(team_, Context({1}), Context({2}), x);
  for (int i = 0; i < 2; ++i) {
    const auto predictions = (*model)(x, 1, true);
    ASSERT_TRUE(predictions.ok()) << predictions.status();
    EXPECT_TRUE(at::equal(predictions->cond, at::full_like(x, 2)));
    EXPECT_TRUE(at::equal(predictions->uncond, at::full_like(x, 3)));
  }
  EXPECT_THAT(mate.TakeItems(), ElementsAre(1));
  EXPECT_THAT(self_.TakeItems(), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("no memory")));
}

TEST_F(TwoSidedModelTest, ErrorsOfEitherSideEndTheEvaluation) {
  FakeModel& mate = AddMate();
  const at::Tensor x = at::ones({1, 4, 2, 2});
  const auto model = Create(team_, Context({1}), Context({2}), x);
  mate.broken = true;
  EXPECT_THAT(std::string((*model)(x, 1, true).status().message()), HasSubstr("broken"));
  mate.broken = false;
  self_.broken = true;
  EXPECT_THAT(std::string((*model)(x, 1, true).status().message()), HasSubstr("broken"));
  self_.broken = false;
  EXPECT_TRUE((*model)(x, 1, true).ok());
  cancel_.Cancel(absl::CancelledError("enough"));
  EXPECT_EQ((*model)(x, 1, true).status().message(), "enough");
}

TEST_F(TwoSidedModelTest, WithTimesTheFasterWayIsFound) {
  const FakeModel& mate = AddMate();
  team_.times = std::make_shared<TeamTimes>();
  const at::Tensor x = at::ones({1, 4, 2, 2});
  const auto model = Create(team_, Context({1}), Context({2}), x);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE((*model)(x, 1, true).ok());
  EXPECT_THAT(self_.TakeItems(), ElementsAre(2, 2, 1, 1));
  EXPECT_THAT(mate.TakeItems(), ElementsAre(1, 1));
  // Of this size, the team is the slower from now on.
  for (int i = 0; i < 10; ++i) team_.times->Record(2 * x.numel(), TeamTimes::Way::kAlone, 0);
  ASSERT_TRUE((*model)(x, 1, true).ok());
  EXPECT_THAT(self_.TakeItems(), ElementsAre(2));
}

TEST(TeamTimesTest, TriesBothWaysTwiceThenTakesTheFaster) {
  using Way = TeamTimes::Way;
  TeamTimes times;
  constexpr int64_t kSize = 100;
  for (const auto& [way, seconds] :
       {std::pair(Way::kAlone, 9.0), std::pair(Way::kAlone, 2.0), std::pair(Way::kTogether, 8.0),
        std::pair(Way::kTogether, 1.0)}) {
    const TeamTimes::Choice choice = times.Next(kSize);
    EXPECT_EQ(choice.way, way);
    EXPECT_TRUE(choice.measure);
    times.Record(kSize, way, seconds);
  }
  EXPECT_EQ(times.Next(kSize).way, Way::kTogether);
  EXPECT_FALSE(times.Next(kSize).measure);
  times.Record(kSize, Way::kAlone, 0.5);
  EXPECT_EQ(times.Next(kSize).way, Way::kAlone);
  EXPECT_TRUE(times.Next(kSize + 1).measure);  // another size is another question
}

}  // namespace
}  // namespace distorch::pipeline
