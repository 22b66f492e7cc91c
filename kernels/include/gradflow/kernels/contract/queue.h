// Recordings, timers and names of what is queued. The rules of every call stand in kernels/backend.h.
#pragma once

namespace gradflow::kernels {

// A sequence of launches recorded once and replayed (a CUDA graph).
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

// The time between two points of the backend's stream.
class Timer {
 public:
  virtual ~Timer() = default;
  virtual void start() = 0;      // queued
  virtual void stop() = 0;       // queued
  virtual double seconds() = 0;  // waits for the last stop(); throws InternalError without a start() before it
};

// A name for launches in profilers; null where names are not asked for.
using RangeName = const void*;

}  // namespace gradflow::kernels
