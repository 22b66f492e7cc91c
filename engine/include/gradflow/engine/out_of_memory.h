// What is said when a planned step does not fit into memory.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "gradflow/engine/plan.h"
#include "gradflow/kernels/error.h"

namespace gradflow {

// The arena of a plan is larger than the room there is.
class OutOfMemory : public UserError {
 public:
  OutOfMemory(const std::string& message, std::size_t needed, std::size_t room)
      : UserError(message), needed_(needed), room_(room) {}

  std::size_t needed() const noexcept { return needed_; }  // bytes of the arena
  std::size_t room() const noexcept { return room_; }      // bytes it may take

 private:
  std::size_t needed_, room_;
};

// The room for an arena, and where it ends.
struct Room {
  std::size_t bytes = 0;
  std::string text;  // "2.0 GiB are free on cpu"
};

// What a device has free, or what `limit` leaves beside `persistent` bytes (parameters, moments), if that is
// less.
Room room_for_arena(Backend& backend, std::size_t limit, std::size_t persistent);

// Throws OutOfMemory, one line: what is needed, what there is, and the first planned tensor (in the order of the
// step) that has no room.
void require_room(const Plan& plan, const Room& room);

// Runs make(). Where it ends in OutOfMemory, looks for the largest batch below `batch` whose arena would fit, by
// planning alone, and throws the same with that batch.
void with_batch_advice(std::int64_t batch, const std::function<void()>& make,
                       const std::function<std::size_t(std::int64_t)>& arena_bytes);

// "3.4 GiB"
std::string memory_text(std::size_t bytes);

}  // namespace gradflow
