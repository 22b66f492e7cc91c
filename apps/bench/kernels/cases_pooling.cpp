// Cases of pooling and of the parameter-free shortcut.
#include <string>

#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

// Windows of 3x3 with stride 2, as ResNets begin; small images at small sizes.
void CaseList::pooling() {
  const DType t = t_;
  const auto window = [](std::size_t size) {
    kernels::PoolWindow w{.batch = static_cast<std::int64_t>(size), .height = 1, .width = 1, .channels = 1};
    if (size >= 16384) w = {.batch = w.batch / 16384, .height = 16, .width = 16, .channels = 64};
    w.kernel_h = w.kernel_w = 3, w.stride_h = w.stride_w = 2, w.pad_h = w.pad_w = 1;
    return w;
  };
  const auto count = [](std::int64_t b, std::int64_t h, std::int64_t w, std::int64_t c) {
    return static_cast<std::size_t>(b * h * w * c);
  };
  const auto shortcut = [window](std::size_t size) {
    const kernels::PoolWindow w = window(size);
    return kernels::ShortcutShape{w.batch, w.height, w.width, w.channels, 2 * w.channels, 2};
  };
  for (const bool backward : {false, true}) {
    const char* pass = backward ? "backward" : "forward";
    const char* part = backward ? "gradient" : "all";
    for (const bool max : {true, false}) {
      KernelCase& c = add(std::string(max ? "pool_max_" : "pool_average_") + part, "", "pooling",
                          max ? (backward ? "max_pool_backward" : "max_pool_forward")
                              : (backward ? "average_pool_backward" : "average_pool_forward"),
                          pass);
      c.work = [=, b = bytes_](std::size_t size) {
        const kernels::PoolWindow p = window(size);
        const std::size_t x = count(p.batch, p.height, p.width, p.channels),
                          y = count(p.batch, p.out_height(), p.out_width(), p.channels);
        Work w;
        w.rows = static_cast<std::size_t>(p.batch), w.columns = x / w.rows;
        w.operands = {numbers(t, x), numbers(t, y), zeros(y * sizeof(std::int32_t))};
        const double indices = max ? static_cast<double>(y * sizeof(std::int32_t)) : 0.0;
        const double bx = b * static_cast<double>(x), by = b * static_cast<double>(y);
        w.read_bytes = backward ? by + indices : bx, w.written_bytes = backward ? bx : by + indices;
        return w;
      };
      c.bind = [=](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
        const kernels::PoolWindow shape = window(elements(w));
        auto* winners = static_cast<std::int32_t*>(p[2]);
        if (max && backward)
          return
              [&b, a = kernels::MaxPoolBackward{t, shape, winners, p[1], p[0]}] { b.max_pool_backward(a); };
        if (max)
          return [&b, a = kernels::MaxPoolForward{t, shape, p[0], p[1], winners}] { b.max_pool_forward(a); };
        if (backward)
          return [&b, a = kernels::AveragePoolBackward{t, shape, p[1], p[0]}] { b.average_pool_backward(a); };
        return [&b, a = kernels::AveragePoolForward{t, shape, p[0], p[1]}] { b.average_pool_forward(a); };
      };
    }
    KernelCase& c = add(std::string("shortcut_") + part, "", "pooling",
                        backward ? "shortcut_backward" : "shortcut_forward", pass);
    c.work = [=, b = bytes_](std::size_t size) {
      const kernels::ShortcutShape s = shortcut(size);
      const std::size_t x = count(s.batch, s.height, s.width, s.channels),
                        y = count(s.batch, s.out_height(), s.out_width(), s.outputs);
      Work w;
      w.rows = static_cast<std::size_t>(s.batch), w.columns = x / w.rows;
      w.operands = {numbers(t, x), numbers(t, y)};
      // Of x every fourth pixel is read; of dy half the channels.
      const double bx = b * static_cast<double>(x), by = b * static_cast<double>(y);
      w.read_bytes = by / 2, w.written_bytes = backward ? bx : by;
      return w;
    };
    c.bind = [=](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      const kernels::ShortcutShape s = shortcut(elements(w));
      if (backward) return [&b, a = kernels::ShortcutBackward{t, s, p[1], p[0]}] { b.shortcut_backward(a); };
      return [&b, a = kernels::ShortcutForward{t, s, p[0], p[1]}] { b.shortcut_forward(a); };
    };
  }
}

}  // namespace gradflow::app::cases
