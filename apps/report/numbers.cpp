#include "apps/report/numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace gradflow::app {
namespace {

// Superscripts by digit, then minus.
constexpr std::array<std::string_view, 10> kSuperscripts = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};

std::string superscript(int number) {
  std::string text;
  for (const char c : fmt::format("{}", number)) text += c == '-' ? "⁻" : kSuperscripts[c - '0'];
  return text;
}

bool is_superscript(std::string_view character) {
  return character == "⁻" ||
         std::find(kSuperscripts.begin(), kSuperscripts.end(), character) != kSuperscripts.end();
}

// Length of the UTF-8 sequence that begins with this byte; 1 for bytes that begin none.
std::size_t sequence_length(unsigned char lead) {
  if (lead >= 0xF0) return 4;
  if (lead >= 0xE0) return 3;
  return lead >= 0xC0 ? 2 : 1;
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 37> kAscii = {{
    {"·", "*"}, {"–", "-"},      {"—", "-"},   {"×", "x"},     {"⁻", "-"},   {"⁰", "0"},    {"¹", "1"},
    {"²", "2"}, {"³", "3"},      {"⁴", "4"},   {"⁵", "5"},     {"⁶", "6"},   {"⁷", "7"},    {"⁸", "8"},
    {"⁹", "9"}, {"∞", "inf"},    {"…", "..."}, {"≥", ">="},    {"≤", "<="},  {"√", "sqrt"}, {"′", "'"},
    {"’", "'"}, {"“", "\""},     {"”", "\""},  {"σ", "sigma"}, {"φ", "phi"}, {"χ", "chi"},  {"∂", "d"},
    {"≈", "~"}, {"\u00a0", " "}, {"−", "-"},   {"→", "->"},    {"←", "<-"},  {"▼", "v"},    {"▲", "^"},
    {"●", "o"}, {"é", "e"},
}};

}  // namespace

double round_digits(double value, int digits) {
  if (!std::isfinite(value)) return value;
  return std::strtod(fmt::format("{:.{}e}", value, digits - 1).c_str(), nullptr);
}

std::string power_of_ten(int exponent, Charset charset) {
  if (exponent == 0) return "1";
  return charset == Charset::ascii ? fmt::format("1e{}", exponent) : "10" + superscript(exponent);
}

std::vector<std::int64_t> shares_ppm(std::span<const double> shares) {
  std::vector<std::int64_t> ppm;
  for (const double share : shares) ppm.push_back(std::isfinite(share) ? std::llround(share * 1e6) : 0);
  return ppm;
}

std::string pretty(double value, int digits, Charset charset) {
  const bool ascii = charset == Charset::ascii;
  if (std::isnan(value)) return ascii ? "-" : "–";
  if (std::isinf(value)) return std::string(value < 0 ? "-" : "") + (ascii ? "inf" : "∞");
  if (value == 0) return "0";
  const double rounded = std::abs(round_digits(value, digits));
  if (rounded >= 1e-3 && rounded < 1e4) {
    const int decimals = digits - 1 - static_cast<int>(std::floor(std::log10(rounded)));
    return fmt::format("{:.{}f}", value, std::max(decimals, 0));
  }
  const std::string text = fmt::format("{:.1e}", value);  // "-1.7e-31"
  const std::size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (ascii) return fmt::format("{}e{}", text.substr(0, e), exponent);
  return text.substr(0, e) + "·10" + superscript(exponent);
}

std::string percent(double fraction, int decimals, Charset charset) {
  if (!std::isfinite(fraction)) return charset == Charset::ascii ? "-" : "–";
  return fmt::format("{:.{}f}{}%", fraction * 100, decimals, charset == Charset::ascii ? " " : "\u00a0");
}

std::string to_ascii(std::string_view utf8) {
  std::string out;
  bool in_power = false;
  for (std::size_t i = 0; i < utf8.size();) {
    const std::size_t length =
        std::min(sequence_length(static_cast<unsigned char>(utf8[i])), utf8.size() - i);
    const std::string_view character = utf8.substr(i, length);
    i += length;
    if (static_cast<unsigned char>(character[0]) < 0x80) {
      in_power = false;
      out += character;
      continue;
    }
    // "·10⁻³¹" becomes "e-31", "10⁻³¹" "1e-31", and any other power "^2".
    const bool raised = is_superscript(character);
    if (raised && !in_power) {
      if (out.ends_with("*10")) {
        out.replace(out.size() - 3, 3, "e");
      } else if (out == "10" ||
                 (out.ends_with("10") && !std::isdigit(static_cast<unsigned char>(out[out.size() - 3])))) {
        out.replace(out.size() - 2, 2, "1e");
      } else {
        out += '^';
      }
    }
    in_power = raised;
    std::string_view replacement = "?";
    for (const auto& [from, to] : kAscii) {
      if (from == character) replacement = to;
    }
    out += replacement;
  }
  return out;
}

}  // namespace gradflow::app
