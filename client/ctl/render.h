// Text for people: amounts, bars and tables. Pure functions of their arguments but for
// DetectTerminal.
#ifndef CLIENT_CTL_RENDER_H_
#define CLIENT_CTL_RENDER_H_

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace distorch::ctl {

// What an output stream can show.
struct Terminal {
  bool tty = false;      // lines may be redrawn
  bool unicode = false;  // block characters; ASCII otherwise
  int width = 80;        // columns
  int height = 24;       // lines
};

// Looks at the stream and, for Unicode, at the environment. A COLUMNS variable does not matter.
Terminal DetectTerminal(std::FILE* stream);

// Unicode only on a terminal whose locale says UTF-8. The first of LC_ALL, LC_CTYPE, LANG that is
// set and not empty decides, as in setlocale(3); null is "not set".
bool WantsUnicode(bool tty, const char* lc_all, const char* lc_ctype, const char* lang);

// "0 B", "999 B", "1.00 KiB", "12.3 MiB", "9.77 GiB": powers of 1024, three digits. Negative
// amounts keep their sign.
std::string FormatBytes(int64_t bytes);
// "850 ms", "1.23 s", "75.0 s", "2 min 05 s", "1 h 02 min". Negative or not finite: "-".
std::string FormatSeconds(double seconds);
// "61.2 %"; a fraction that is not finite: "-".
std::string FormatPercent(double fraction);

// `width` columns, `fraction` of them filled (clamped to 0…1; not finite counts as 0), to an eighth
// of a column with Unicode. A fraction above 0 always shows something, one below 1 is never full.
std::string Bar(double fraction, int width, bool unicode);

// How many columns UTF-8 text takes: 2 for wide characters, 0 for combining ones, 1 for a byte that
// is no UTF-8.
int DisplayWidth(std::string_view text);
// Control characters, which could drive the terminal, and bytes that are no UTF-8 become '?'.
std::string Printable(std::string_view text);
// At most `width` columns of the text, cut between characters.
std::string Truncated(std::string_view text, int width);

enum class Align { kLeft, kRight };

// Rows of cells below a header line, two spaces between columns, no trailing spaces, each line
// ended by '\n'. Cells are made Printable.
class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);

  // Cells left out at the end are empty; more cells than columns are dropped.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string Render() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace distorch::ctl

#endif  // CLIENT_CTL_RENDER_H_
