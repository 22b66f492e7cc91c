// How the learning rate goes over the steps of a run, from a short text:
//
//   constant
//   step:every=N,factor=F         times F after every N steps
//   step:at=A/B/...,factor=F      times F from step A on, again from step B on, ...
//   cosine[:final=0]              from the base rate down to final * base, half a cosine
//                                 (Loshchilov & Hutter, "SGDR", 2017, without restarts)
//   one-cycle[:peak_at=0.3,start=0.04,final=0]
//                                 up from start * base to the base rate over the share peak_at of the run,
//                                 then down to final * base, both half a cosine (Smith & Topin, 2018)
//
// and with any of them warmup=N[,warmup_from=R]: over the first N steps the rate rises linearly, step s
// (from 0) running at base * (R + (1 - R) * (s + 1) / N) with R = 0 if not given, so that the first step
// moves and step N-1 has the full rate. warmup=N,warmup_at=R instead: those steps all run at base * R, and step N
// jumps to the full rate (He et al. 2015, section 4.2). After it, `cosine` and `one-cycle` span the rest of the run;
// `step` counts from the run's first step. Factors and shares are relative to the base rate.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gradflow {

class Schedule {
 public:
  Schedule() = default;                      // constant
  explicit Schedule(std::string_view spec);  // UserError, see spec_text.h

  // The rate of step `step`, counted from 0, in a run of `total_steps`. A function of its arguments
  // alone, so a resumed run needs nothing else. Steps at or beyond the total keep the final rate.
  // UserError if base is negative or not finite, or check_length() would throw.
  double learning_rate(std::uint64_t step, std::uint64_t total_steps, double base) const;

  // UserError if the run is empty or not longer than the warm-up.
  void check_length(std::uint64_t total_steps) const;

  // Whether `step` ever multiplies the rate in such a run; true for every other schedule.
  bool takes_effect(std::uint64_t total_steps) const;

  const std::string& text() const { return text_; }

 private:
  enum class Kind : std::uint8_t { constant, step, cosine, one_cycle };

  std::string text_ = "constant";
  Kind kind_ = Kind::constant;
  std::uint64_t every_ = 0;        // step: 0 if `at` was given
  std::vector<std::uint64_t> at_;  // step: ascending
  double factor_ = 1;              // step
  double start_ = 1, final_ = 0;   // one-cycle; cosine and one-cycle
  double peak_at_ = 0;             // one-cycle
  std::uint64_t warmup_ = 0;
  double warmup_from_ = 0;
  bool warmup_flat_ = false;  // at warmup_from_ all the time
};

}  // namespace gradflow
