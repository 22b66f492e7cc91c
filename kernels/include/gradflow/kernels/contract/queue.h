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

// A point of the backend's stream, and a wait for it. Where calls run at once there is nothing to wait for.
class Marker {
 public:
  virtual ~Marker() = default;
  virtual void set() {}   // queued
  virtual void wait() {}  // until all queued before the last set() is done; at once without one
};

// A name for launches in profilers; null where names are not asked for.
using RangeName = const void*;

}  // namespace gradflow::kernels
