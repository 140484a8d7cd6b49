#include "lib/text/text_cleaning.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "lib/text/html_entities.h"

namespace distorch::text {
namespace {

// ICU hands out its normalizers from constant data; they cannot be missing in a working
// installation, and where one is, text goes through as it is.
icu::UnicodeString Normalize(const icu::Normalizer2* normalizer, const icu::UnicodeString& text) {
  UErrorCode error = U_ZERO_ERROR;
  icu::UnicodeString result = normalizer->normalize(text, error);
  return U_SUCCESS(error) ? result : text;
}

icu::UnicodeString Nfc(const icu::UnicodeString& text) {
  UErrorCode error = U_ZERO_ERROR;
  static const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(error);
  return normalizer == nullptr ? text : Normalize(normalizer, text);
}

icu::UnicodeString Nfkc(const icu::UnicodeString& text) {
  UErrorCode error = U_ZERO_ERROR;
  static const icu::Normalizer2* normalizer = icu::Normalizer2::getNFKCInstance(error);
  return normalizer == nullptr ? text : Normalize(normalizer, text);
}

bool IsLatinLigature(UChar32 c) {
  return c == 0x132 || c == 0x133 || c == 0x149 || (c >= 0x1C4 && c <= 0x1CC) ||
         (c >= 0x1F1 && c <= 0x1F3) || (c >= 0xFB00 && c <= 0xFB06);
}

bool IsWidthVariant(UChar32 c) { return c == 0x3000 || (c >= 0xFF01 && c <= 0xFFEF); }

bool IsDroppedControl(UChar32 c) {
  return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
         (c >= 0x206A && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

UChar32 StraightenQuote(UChar32 c) {
  if (c == 0x02BC || (c >= 0x2018 && c <= 0x201B)) return '\'';
  if (c >= 0x201C && c <= 0x201F) return '"';
  return c;
}

// The ordinary spelling of one code point: Windows-1252 for C1 controls, ligatures apart, widths
// made standard.
std::u32string Ordinary(UChar32 c) {
  c = C1ToWindows1252(c);
  if (c == 0x37E)
    return U";";  // Canonically equal; normal form C would come too late for character references.
  if (c == 0xFB05) return U"\u017Ft";  // Its compatibility form would lose the long s as well.
  if (!IsLatinLigature(c) && !IsWidthVariant(c)) return std::u32string(1, c);
  const icu::UnicodeString parts = Nfkc(icu::UnicodeString(c));
  std::u32string result;
  for (int i = 0; i < parts.length(); i = parts.moveIndex32(i, 1)) {
    result.push_back(parts.char32At(i));
  }
  return result;
}

// Applies the character-level repairs to a stream of code points. Character references are resolved
// as their ';' arrives, by looking back a bounded distance over what is already repaired: nested
// ones ("&amp;amp;") thus come out in one pass.
class Repairer {
 public:
  Repairer(icu::UnicodeString* out, bool decode_entities)
      : out_(*out), decode_entities_(decode_entities), begin_(out->length()) {}

  void Add(UChar32 c) {
    std::u32string pending = Ordinary(c);
    while (decode_entities_ && pending == U";") {
      const std::optional<std::u32string> text = TakeEntityBeforeEnd();
      if (!text.has_value()) break;
      pending.clear();
      for (char32_t decoded : *text) pending += Ordinary(decoded);
    }
    for (UChar32 part : pending) {
      if (!IsDroppedControl(part)) out_.append(StraightenQuote(part));
    }
  }

 private:
  // Where the output ends with a known reference that only lacks its ';', removes it and returns
  // its text.
  std::optional<std::u32string> TakeEntityBeforeEnd() {
    const int end = out_.length();
    const int limit = std::max(begin_, end - static_cast<int>(kMaxHtmlEntityLength));
    int start = end;
    while (start > limit && out_[start - 1] < 0x80 && absl::ascii_isalnum(out_[start - 1])) --start;
    if (start > limit && out_[start - 1] == '#') --start;
    if (start == begin_ || out_[start - 1] != '&') return std::nullopt;
    std::string reference;
    out_.tempSubString(start, end - start).toUTF8String(reference);
    std::optional<std::u32string> text = DecodeHtmlEntity(reference);
    if (text.has_value()) out_.truncate(start - 1);
    return text;
  }

  icu::UnicodeString& out_;
  const bool decode_entities_;
  const int begin_;
};

// The length of the terminal escape (ESC [ digits and semicolons, a letter) at `text[i]`; 0 when
// there is none.
int TerminalEscapeLength(const icu::UnicodeString& text, int i) {
  if (text[i] != 0x1B || i + 1 >= text.length() || text[i + 1] != '[') return 0;
  int end = i + 2;
  while (end < text.length() && ((text[end] >= '0' && text[end] <= '9') || text[end] == ';')) ++end;
  if (end == text.length() || text[end] >= 0x80 || !absl::ascii_isalpha(text[end])) return 0;
  return end + 1 - i;
}

void Repair(const icu::UnicodeString& text, bool decode_entities, icu::UnicodeString* out) {
  Repairer repairer(out, decode_entities);
  for (int i = 0; i < text.length();) {
    if (const int escape = TerminalEscapeLength(text, i); escape > 0) {
      i += escape;
      continue;
    }
    repairer.Add(text.char32At(i));
    i = text.moveIndex32(i, 1);
  }
}

icu::UnicodeString CollapseWhitespace(const icu::UnicodeString& text) {
  icu::UnicodeString result;
  bool pending_space = false;
  for (int i = 0; i < text.length(); ++i) {
    if (u_isUWhiteSpace(text[i])) {
      pending_space = !result.isEmpty();
      continue;
    }
    if (pending_space) result.append(u' ');
    pending_space = false;
    result.append(text[i]);
  }
  return result;
}

}  // namespace

uint32_t C1ToWindows1252(uint32_t code_point) {
  static constexpr char16_t kWindows1252[32] = {
      0x20AC, 0x0081, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
      0x2039, 0x0152, 0x008D, 0x017D, 0x008F, 0x0090, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
      0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x009D, 0x017E, 0x0178};
  return code_point >= 0x80 && code_point <= 0x9F ? kWindows1252[code_point - 0x80] : code_point;
}

std::string CleanText(std::string_view utf8) {
  utf8 = utf8.substr(0, std::numeric_limits<int32_t>::max());
  const icu::UnicodeString text =
      icu::UnicodeString::fromUTF8({utf8.data(), static_cast<int32_t>(utf8.size())});
  // A literal '<' says that the text is about markup; its line and all after keep their references.
  int markup = text.indexOf(u'<');
  markup = markup < 0 ? text.length() : text.lastIndexOf(u'\n', 0, markup) + 1;

  icu::UnicodeString repaired;
  Repair(text.tempSubString(0, markup), /*decode_entities=*/true, &repaired);
  Repair(text.tempSubString(markup), /*decode_entities=*/false, &repaired);
  std::string result;
  CollapseWhitespace(Nfc(repaired)).toLower(icu::Locale::getRoot()).toUTF8String(result);
  return result;
}

}  // namespace distorch::text
