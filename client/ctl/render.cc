#include "client/ctl/render.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"

namespace distorch::ctl {
namespace {

constexpr utf8proc_int32_t kInvalid = -1;

// The character at the start of `text` and its length in bytes; kInvalid and 1 for a byte that
// starts none.
std::pair<utf8proc_int32_t, size_t> NextCharacter(std::string_view text) {
  utf8proc_int32_t character = kInvalid;
  utf8proc_ssize_t length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &character);
  if (length <= 0) return {kInvalid, 1};
  return {character, static_cast<size_t>(length)};
}

int CharacterWidth(utf8proc_int32_t character) {
  return character == kInvalid ? 1 : utf8proc_charwidth(character);
}

bool IsControl(utf8proc_int32_t character) {
  return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

// Three digits, as "1.23", "12.3", "123"; 999.7 is "1000", which callers avoid by choosing the unit
// first.
std::string ThreeDigits(double value) {
  double magnitude = std::abs(value);
  if (magnitude >= 99.95) return absl::StrFormat("%.0f", value);
  if (magnitude >= 9.995) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

}  // namespace

Terminal DetectTerminal(std::FILE* stream) {
  Terminal terminal;
  int fd = fileno(stream);
  terminal.tty = isatty(fd) == 1;
  terminal.unicode = WantsUnicode(terminal.tty, std::getenv("LC_ALL"), std::getenv("LC_CTYPE"),
                                  std::getenv("LANG"));
  winsize size{};
  if (terminal.tty && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.width = size.ws_col;
    if (size.ws_row > 0) terminal.height = size.ws_row;
  }
  return terminal;
}

bool WantsUnicode(bool tty, const char* lc_all, const char* lc_ctype, const char* lang) {
  if (!tty) return false;
  for (const char* value : {lc_all, lc_ctype, lang}) {
    if (value == nullptr || *value == '\0') continue;
    std::string locale = absl::AsciiStrToLower(value);
    return absl::StrContains(locale, "utf-8") || absl::StrContains(locale, "utf8");
  }
  return false;
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  if (std::abs(value) < 1024) return absl::StrFormat("%d B", bytes);
  size_t unit = 0;
  value /= 1024;
  // 999.5 would print as four digits; the next unit says the same in three.
  while (std::abs(value) >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%s %s", ThreeDigits(value), kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 0.9995) return absl::StrFormat("%.0f ms", seconds * 1e3);
  if (seconds < 99.95) return absl::StrFormat("%s s", ThreeDigits(seconds));
  if (seconds >= 1e9) return "-";
  int64_t whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %02d min", whole / 3600, whole % 3600 / 60);
}

std::string FormatPercent(double fraction) {
  return std::isfinite(fraction) ? absl::StrFormat("%.1f %%", fraction * 100) : "-";
}

std::string Bar(double fraction, int width, bool unicode) {
  constexpr std::array<const char*, 8> kEighths = {"░", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  width = std::max(width, 1);
  if (!std::isfinite(fraction)) fraction = 0;
  const int parts = unicode ? 8 : 1;
  const int total = width * parts;
  int filled = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * total));
  if (fraction > 0) filled = std::max(filled, 1);
  if (fraction < 1) filled = std::min(filled, total - 1);

  std::string bar;
  for (int column = 0; column < width; ++column) {
    int part = std::clamp(filled - column * parts, 0, parts);
    if (part == parts) {
      bar += unicode ? "█" : "#";
    } else {
      bar += unicode ? kEighths[part] : ".";
    }
  }
  return bar;
}

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    auto [character, length] = NextCharacter(text);
    width += CharacterWidth(character);
    text.remove_prefix(length);
  }
  return width;
}

std::string Printable(std::string_view text) {
  std::string printable;
  while (!text.empty()) {
    auto [character, length] = NextCharacter(text);
    if (IsControl(character)) {  // kInvalid is negative, so it counts as one
      printable += '?';
    } else {
      printable += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return printable;
}

std::string Truncated(std::string_view text, int width) {
  size_t end = 0;
  while (end < text.size()) {
    auto [character, length] = NextCharacter(text.substr(end));
    width -= CharacterWidth(character);
    if (width < 0) break;
    end += length;
  }
  return std::string(text.substr(0, end));
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  for (std::string& cell : cells) cell = Printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<std::string> header;
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    header.push_back(columns_[i].title);
    widths.push_back(DisplayWidth(columns_[i].title));
    for (const auto& row : rows_) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }

  std::string text;
  auto add_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      std::string padding(widths[i] - DisplayWidth(cells[i]), ' ');
      if (i > 0) line += "  ";
      line += columns_[i].align == Align::kRight ? padding + cells[i] : cells[i] + padding;
    }
    text += absl::StripTrailingAsciiWhitespace(line);
    text += '\n';
  };
  add_line(header);
  for (const auto& row : rows_) add_line(row);
  return text;
}

}  // namespace distorch::ctl
