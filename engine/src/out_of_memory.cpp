#include "gradflow/engine/out_of_memory.h"

#include <fmt/format.h>

#include <cstdint>

namespace gradflow {

std::string memory_text(std::size_t bytes) {
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  double size = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; size >= 1024 && unit + 1 < std::size(units); ++unit) size /= 1024;
  return fmt::format("{:.1f} {}", size, units[unit]);
}

Room room_for_arena(Backend& backend, std::size_t limit, std::size_t persistent) {
  const std::size_t free = backend.available_bytes(), left = limit > persistent ? limit - persistent : 0;
  if (free <= left) return {free, fmt::format("{} are free on {}", memory_text(free), backend.info().name)};
  return {left, fmt::format("{} are left of the limit of {} beside {} of parameters and moments", memory_text(left),
                            memory_text(limit), memory_text(persistent))};
}

void require_room(const Plan& plan, const Room& room) {
  if (plan.arena_bytes <= room.bytes) return;
  const Buffer* first = nullptr;
  for (const Buffer& b : plan.buffers)
    if (b.offset + b.bytes > room.bytes && (!first || b.begin < first->begin || (b.begin == first->begin && b.bytes > first->bytes)))
      first = &b;
  std::string tensor;  // an arena ends with one of its buffers, so there is one
  if (first) tensor = fmt::format("; the first without room is the {} of '{}' ({})", name_of(first->role), first->name, memory_text(first->bytes));
  throw OutOfMemory(fmt::format("out of memory: the tensors of a step need {}, {}{}", memory_text(plan.arena_bytes), room.text, tensor),
                    plan.arena_bytes, room.bytes);
}

void with_batch_advice(std::int64_t batch, const std::function<void()>& make,
                       const std::function<std::size_t(std::int64_t)>& arena_bytes) {
  try {
    make();
  } catch (const OutOfMemory& e) {
    std::int64_t fits = 0, too_large = batch;
    while (too_large - fits > 1) {
      const std::int64_t middle = fits + (too_large - fits) / 2;
      (arena_bytes(middle) <= e.room() ? fits : too_large) = middle;
    }
    const std::string advice = fits > 0 ? fmt::format("; a batch of {} instead of {} would fit", fits, batch)
                                        : std::string("; not even a batch of 1 would fit");
    throw OutOfMemory(e.what() + advice, e.needed(), e.room());
  }
}

}  // namespace gradflow
