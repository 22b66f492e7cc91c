// Cases of what fills memory: batches, random numbers, casts, copies.
#include "apps/bench/kernels/case_list.h"

namespace gradflow::app::cases {

void CaseList::inputs() {
  const DType t = t_;
  constexpr std::size_t kPixels = 784;
  KernelCase& gather = add("gather_batch", "", "input", "gather_batch", "input");
  gather.work = [t, b = bytes_](std::size_t size) {
    Work w = matrix(size, kPixels);
    const auto n = static_cast<double>(elements(w)), rows = static_cast<double>(w.rows);
    w.operands = {{Content::bytes, DType::u8, elements(w)},
                  {Content::bytes, DType::u8, 2 * w.rows},  // labels
                  {Content::rows, DType::i32, w.rows},
                  numbers(t, elements(w)),
                  {Content::zero, DType::i32, w.rows}};
    w.read_bytes = n + 6 * rows, w.written_bytes = b * n + 4 * rows;
    return w;
  };
  gather.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::GatherBatch{t, w.rows, w.columns, static_cast<std::uint8_t*>(p[0]),
                                         static_cast<std::uint16_t*>(p[1]), static_cast<std::int32_t*>(p[2]),
                                         0.3f, 2.0f, p[3], static_cast<std::int32_t*>(p[4])}] {
      b.gather_batch(a);
    };
  };
  KernelCase& crop = add("gather_crop", "", "input", "gather_batch", "input");
  crop.work = [work = gather.work](std::size_t size) {
    Work w = work(size);
    w.operands.push_back({Content::zero, DType::u8, 3 * w.rows});
    w.read_bytes += 3 * static_cast<double>(w.rows);
    return w;
  };
  crop.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    kernels::GatherBatch a{t, w.rows, w.columns, static_cast<std::uint8_t*>(p[0]), static_cast<std::uint16_t*>(p[1]),
                           static_cast<std::int32_t*>(p[2]), 0.3f, 2.0f, p[3], static_cast<std::int32_t*>(p[4])};
    const std::size_t height = w.columns % 28 == 0 ? 28 : 1;
    a.height = height, a.width = w.columns / height, a.channels = 1;
    a.crops = static_cast<std::int8_t*>(p[5]);
    return [&b, a] { b.gather_batch(a); };
  };
  for (const bool normal : {false, true}) {
    KernelCase& random = add(normal ? "random_normal" : "random_uniform", "", "memory", "random_fill", "memory");
    random.work = arrays(1, 0, 1);
    random.bind = [t, normal](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      const auto distribution = normal ? kernels::Distribution::normal : kernels::Distribution::uniform;
      return [&b, a = kernels::RandomFill{t, w.operands[0].elements, p[0], distribution, 0, 1, 1, 2, 0}] {
        b.random_fill(a);
      };
    };
  }
  // From the other type of storage: bf16 to f32, f32 to all others.
  KernelCase& cast = add("cast_to", "", "memory", "cast", "memory");
  const DType from = t == DType::f32 ? DType::bf16 : DType::f32;
  cast.work = [t, from](std::size_t n) {
    Work w{.operands = {numbers(from, n), numbers(t, n)}};
    w.read_bytes = static_cast<double>(w.operands[0].bytes()), w.written_bytes = static_cast<double>(w.operands[1].bytes());
    return w;
  };
  cast.bind = [t, from](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, a = kernels::Cast{from, t, w.operands[0].elements, p[0], p[1]}] { b.cast(a); };
  };
  KernelCase& fill = add("fill", "", "memory", "fill", "memory");
  fill.work = arrays(1, 0, 1);
  fill.bind = [t](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
    return [&b, t, to = p[0], n = w.operands[0].elements] { b.fill(t, to, n, 0.5); };
  };
}

void CaseList::memory() {
  using kernels::Traffic;
  struct Row {
    const char* stem;
    Traffic kind;
    std::size_t reads, writes;
  };
  for (const Row& row : {Row{"memory_read", Traffic::read, 1, 0}, Row{"memory_copy", Traffic::copy, 1, 1},
                         Row{"memory_add", Traffic::add, 2, 1}}) {
    KernelCase& c = add(row.stem, "", "memory", "move_memory", "memory");
    c.work = arrays(3, static_cast<double>(row.reads), static_cast<double>(row.writes));
    c.bind = [kind = row.kind](Backend& b, const Work& w, Pointers p) -> LaunchOnce {
      return [&b, a = kernels::MoveMemory{kind, w.operands[0].elements, static_cast<float*>(p[0]),
                                          static_cast<float*>(p[1]), static_cast<float*>(p[2])}] {
        b.move_memory(a);
      };
    };
  }
}

}  // namespace gradflow::app::cases
