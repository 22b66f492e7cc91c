// How numbers are written for people: three digits, powers of ten as 10⁻³¹, "–" for what was not measured.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gradflow::app {

// What the reader's screen can show.
enum class Charset { utf8, ascii };

// The double nearest to `value` written with that many significant digits; NaN and infinities as they are.
double round_digits(double value, int digits = 6);

// Shares of a histogram in whole parts per million: short, and finer than one element of a batch of 128 in a layer of
// 1000 units needs. What is not finite is 0.
std::vector<std::int64_t> shares_ppm(std::span<const double> shares);

// "0.236", "36.9", "1.7·10⁻³¹" ("1.7e-31" in ASCII); "0"; "∞" ("inf"); "–" ("-") for NaN. `digits` are
// the significant digits of plain numbers, powers of ten carry two.
std::string pretty(double value, int digits = 3, Charset charset = Charset::utf8);

// "10⁻³¹"; "1e-31" in ASCII. Zero is "1".
std::string power_of_ten(int exponent, Charset charset = Charset::utf8);

// A fraction as "87.3 %" (the space is a no-break space); "–" for NaN.
std::string percent(double fraction, int decimals = 1, Charset charset = Charset::utf8);

// ASCII stand-ins for the few non-ASCII characters that our own texts use (· – × ⁻³ ∞ …); others become '?'.
std::string to_ascii(std::string_view utf8);

}  // namespace gradflow::app
