#include "lib/serving/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace distorch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FairQueueTest : public ::testing::Test {
 protected:
  FairQueue::Place Enter(const std::string& name, const QueueClaim& claim, bool ready = true) {
    const FairQueue::Place place = queue_.Enter(claim);
    queue_.SetReady(place, ready);
    names_[place] = name;
    return place;
  }
  // Runs all that is ready; their names.
  std::vector<std::string> Drain() {
    std::vector<std::string> ran;
    while (const auto place = queue_.TakeNext()) {
      ran.push_back(names_[*place]);
      queue_.Leave(*place);
      queue_.EndRunning();
    }
    return ran;
  }

  FairQueue queue_{"cuda:0", {.waiting = 8, .per_client = 5}};
  std::map<FairQueue::Place, std::string> names_;
};

TEST_F(FairQueueTest, OneClientIsServedInOrder) {
  for (const char* name : {"a", "b", "c"}) Enter(name, {"x", 0, 2, 2});
  EXPECT_THAT(Drain(), ElementsAre("a", "b", "c"));
}

TEST_F(FairQueueTest, ClientsShareTimeAndNotTurns) {
  for (const char* name : {"long1", "long2"}) Enter(name, {"l", 0, 4, 4});
  for (const char* name : {"short1", "short2", "short3", "short4", "short5"})
    Enter(name, {"s", 0, 1, 1});
  // Beside four seconds of one, four requests of a second of the other.
  EXPECT_THAT(Drain(),
              ElementsAre("long1", "short1", "short2", "short3", "short4", "long2", "short5"));
}

TEST_F(FairQueueTest, AFloodIsPassedByWhoAsksRarely) {
  for (const char* name : {"f1", "f2", "f3", "f4"}) Enter(name, {"flood", 0, 1, 1});
  ASSERT_TRUE(queue_.TakeNext());
  Enter("rare", {"rare", 0, 1, 1});
  queue_.EndRunning();
  EXPECT_EQ(Drain().front(), "rare");
}

TEST_F(FairQueueTest, HigherPrioritiesGoFirst) {
  Enter("usual", {"x", 0, 1, 1});
  Enter("later", {"x", -3, 1, 1});
  Enter("urgent", {"y", 2, 1, 1});
  EXPECT_THAT(Drain(), ElementsAre("urgent", "usual", "later"));
}

TEST_F(FairQueueTest, WhoHasNoWorkHereYetIsGoneRoundAndKeepsItsPlace) {
  const auto elsewhere = Enter("elsewhere", {"x", 0, 1, 1}, /*ready=*/false);
  Enter("second", {"x", 0, 1, 1});
  Enter("third", {"x", 0, 1, 1});
  EXPECT_EQ(names_[*queue_.TakeNext()], "second");
  queue_.EndRunning();
  queue_.SetReady(elsewhere, true);
  EXPECT_EQ(names_[*queue_.TakeNext()], "elsewhere");
}

TEST_F(FairQueueTest, BoundsPlacesInAllAndOfAClient) {
  const FairQueue::Place first = Enter("a", {"x", 0, 1, 1});
  for (int i = 0; i < 4; ++i) Enter("a", {"x", 0, 1, 1});
  EXPECT_THAT(queue_.CheckRoom("x").message(), HasSubstr("--max_queued_per_client"));
  EXPECT_TRUE(queue_.CheckRoom("y").ok());
  for (int i = 0; i < 4; ++i) Enter("b", {"y", 0, 1, 1});
  EXPECT_EQ(queue_.CheckRoom("y").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(queue_.CheckRoom("z").message(), HasSubstr("8 requests"));
  EXPECT_EQ(queue_.waiting(), 9);
  ASSERT_EQ(queue_.TakeNext(), first);
  EXPECT_EQ(queue_.waiting(), 8);
  EXPECT_FALSE(queue_.CheckRoom("z").ok());
  queue_.Leave(first);
  queue_.EndRunning();
  EXPECT_TRUE(queue_.CheckRoom("z").ok());
  EXPECT_TRUE(queue_.CheckRoom("x").ok());
}

TEST_F(FairQueueTest, WhoLeavesBeforeItsTurnIsNotChargedForIt) {
  Enter("x1", {"x", 0, 1, 1});
  Enter("y1", {"y", 0, 1, 1});
  queue_.Leave(Enter("x2", {"x", 0, 100, 100}));
  Enter("y2", {"y", 0, 1, 1});
  Enter("x3", {"x", 0, 1, 1});
  EXPECT_THAT(Drain(), ElementsAre("x1", "y1", "y2", "x3"));
}

TEST_F(FairQueueTest, TellsWhereEachStandsAndWhatIsAhead) {
  Enter("a", {"x", 0, 3, 3});
  ASSERT_TRUE(queue_.TakeNext());
  Enter("b", {"x", 0, 2, 2});
  Enter("c", {"x", 0, 5, 5});
  const auto standings = queue_.Standings();
  ASSERT_EQ(standings.size(), 2u);
  EXPECT_EQ(standings[0].position, 1);
  EXPECT_EQ(standings[0].seconds_ahead, 0);
  EXPECT_EQ(standings[1].position, 2);
  EXPECT_EQ(standings[1].seconds_ahead, 2);
  EXPECT_EQ(queue_.RunningSeconds(), 3);
  EXPECT_EQ(queue_.SecondsAhead({"x", 0, 1, 1}), 7);
  EXPECT_EQ(queue_.SecondsAhead({"x", 1, 1, 1}), 0);
}

}  // namespace
}  // namespace distorch
