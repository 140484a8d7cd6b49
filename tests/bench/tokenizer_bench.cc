// Prompts to tokens. A usual prompt should cost microseconds, a megabyte of anything no more than a
// constant a byte.
#include <benchmark/benchmark.h>

#include <string>
#include <string_view>

#include "lib/text/clip_tokenizer.h"
#include "lib/text/prompt.h"
#include "lib/text/t5_tokenizer.h"
#include "lib/text/text_cleaning.h"

namespace distorch::text {
namespace {

constexpr std::string_view kPrompt =
    "(masterpiece:1.2), best quality, a portrait of an old fisherman by the sea, ((dramatic "
    "light)), "
    "highly detailed, 35mm, f/1.8, it's raining, \u65E5\u672C, caf\u00E9";

std::string Repeat(std::string_view piece, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += piece;
  return text;
}

void Tokenize(benchmark::State& state, const std::string& prompt) {
  const ClipTokenizer& tokenizer = ClipTokenizer::Get();
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.Tokenize(prompt));
  state.SetBytesProcessed(state.iterations() * prompt.size());
}

void UsualPrompt(benchmark::State& state) { Tokenize(state, std::string(kPrompt)); }
BENCHMARK(UsualPrompt);

void CleanUsualPrompt(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(CleanText(kPrompt));
}
BENCHMARK(CleanUsualPrompt);

void ManyPrompts(benchmark::State& state) { Tokenize(state, Repeat(kPrompt, state.range(0))); }
BENCHMARK(ManyPrompts)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void OneWord(benchmark::State& state) { Tokenize(state, Repeat("photograph", state.range(0))); }
BENCHMARK(OneWord)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void OneEmojiWord(benchmark::State& state) {
  Tokenize(state, Repeat("\U0001F600", state.range(0)));
}
BENCHMARK(OneEmojiWord)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void NestedParentheses(benchmark::State& state) {
  const size_t half = state.range(0) / 2;
  Tokenize(state, std::string(half, '(') + "a:1" + std::string(half, ')'));
}
BENCHMARK(NestedParentheses)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void NestedCharacterReferences(benchmark::State& state) {
  Tokenize(state, Repeat("&amp;amp", state.range(0)));
}
BENCHMARK(NestedCharacterReferences)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void TokenizeForT5(benchmark::State& state, const std::string& prompt) {
  const T5Tokenizer& tokenizer = T5Tokenizer::Get();
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokenizer.Tokenize(prompt, T5Tokenizer::kFluxLength));
  }
  state.SetBytesProcessed(state.iterations() * prompt.size());
}

void T5UsualPrompt(benchmark::State& state) { TokenizeForT5(state, std::string(kPrompt)); }
BENCHMARK(T5UsualPrompt);

void T5ManyPrompts(benchmark::State& state) {
  TokenizeForT5(state, Repeat(kPrompt, state.range(0)));
}
BENCHMARK(T5ManyPrompts)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void T5OneWord(benchmark::State& state) {
  TokenizeForT5(state, Repeat("photograph", state.range(0)));
}
BENCHMARK(T5OneWord)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

void T5OneUnknownWord(benchmark::State& state) {
  TokenizeForT5(state, Repeat("\U0001F600", state.range(0)));
}
BENCHMARK(T5OneUnknownWord)->Range(1 << 10, 1 << 20)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace distorch::text
