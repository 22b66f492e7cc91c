// The measuring half of a binding: where readings lie, how they are taken and read back.
#include <cstring>

#include "binding.h"
#include "gradflow/engine/index.h"

namespace gradflow {
// One block: first a Stats for every request (copied whole into the history), then what else was asked for.
void Binding::bind_probes() {
  const auto& requests = options.probes;
  scalar_bytes_ = requests.size() * sizeof(Stats);
  std::size_t bytes = scalar_bytes_, alive_bytes = 0;
  for (const ProbeRequest& r : requests) {
    bytes += r.exponents ? kExponentBins * sizeof(std::uint64_t) : 0;
    bytes += r.split ? 2 * sizeof(Stats) + sizeof(double) : 0;
    alive_units_.push_back(r.alive ? at(static_cast<int>(graph.value(r.id).spec.shape.back())) : 0);
    alive_bytes += alive_units_.back();
  }
  readings_ = DeviceMemory(backend, bytes);
  history_ = DeviceMemory(backend, scalar_bytes_ * at(options.history));
  alive_ = DeviceMemory(backend, alive_bytes);
  if (bytes) backend.zero(readings_.data(), bytes);
  if (history_.bytes()) backend.zero(history_.data(), history_.bytes());
  clear_alive();

  std::size_t offset = scalar_bytes_, alive_offset = 0;
  const auto take = [&](std::size_t size) {
    void* p = readings_.at(offset);
    offset += size;
    return p;
  };
  for (auto& sinks : update_sinks_) sinks.assign(graph.parameters().size(), nullptr);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const ProbeRequest& r = requests[i];
    ProbeSlot slot;
    slot.stats = readings_.as<Stats>() + i;
    if (r.exponents) slot.exponents = static_cast<std::uint64_t*>(take(kExponentBins * sizeof(std::uint64_t)));
    if (r.split) {
      slot.first = static_cast<Stats*>(take(sizeof(Stats)));
      slot.rest = static_cast<Stats*>(take(sizeof(Stats)));
      slot.dot = static_cast<double*>(take(sizeof(double)));
    }
    if (r.alive) slot.alive = static_cast<std::uint8_t*>(alive_.at(alive_offset));
    alive_offset += alive_units_[i];
    slots_.push_back(slot);
    if (plan.probe_places[i].where == ProbePlace::Where::update) {
      const std::size_t which = r.target == ProbeTarget::parameter ? 0 : r.target == ProbeTarget::parameter_gradient ? 1 : 2;
      update_sinks_[which][at(r.id)] = slot.stats;
    }
  }
}

void Binding::launch_probe(const Launch& l) {
  const ProbeRequest& r = options.probes[at(l.probe)];
  const ProbeSlot& slot = slots_[at(l.probe)];
  Tensor t;
  PointwiseId op = PointwiseId::identity;
  switch (r.target) {
    case ProbeTarget::value: {
      t = values[at(r.id)];
      const NodeId producer = graph.value(r.id).producer;
      if (producer != kNobody) op = graph.node(producer).layer->fused_stats().output_op;
      break;
    }
    case ProbeTarget::gradient: t = gradients[at(r.id)]; break;
    case ProbeTarget::parameter: t = parameters_.parameters()[at(r.id)]; break;
    case ProbeTarget::parameter_gradient: t = parameter_gradients[at(r.id)]; break;
    case ProbeTarget::update: return;
  }
  const DType dtype = t.dtype();
  const std::size_t n = t.elements();
  switch (l.kind) {
    case LaunchKind::stats: backend.stats({.dtype = dtype, .n = n, .x = t.data, .op = op, .out = slot.stats}); break;
    case LaunchKind::exponents: backend.exponent_histogram({.dtype = dtype, .n = n, .x = t.data, .bins = slot.exponents}); break;
    case LaunchKind::alive:
      backend.mark_alive({.dtype = dtype, .rows = t.shape().rows(), .columns = alive_units_[at(l.probe)], .y = t.data, .alive = slot.alive});
      break;
    case LaunchKind::snapshot:
    case LaunchKind::split: {
      void* part = arena_.at(plan.buffers[at(plan.snapshot_buffer[at(l.probe)])].offset);
      if (l.kind == LaunchKind::snapshot) {
        backend.copy(part, t.data, t.bytes());
        backend.stats({.dtype = dtype, .n = n, .x = part, .op = op, .out = slot.first});
      } else {
        backend.difference_stats({.dtype = dtype, .n = n, .a = t.data, .b = part, .difference = slot.rest, .dot = slot.dot});
      }
      break;
    }
    default: break;
  }
}

void Binding::clear_readings() {
  if (readings_.bytes()) backend.zero(readings_.data(), readings_.bytes());
}

void Binding::clear_alive() {
  if (alive_.bytes()) backend.zero(alive_.data(), alive_.bytes());
}

void Binding::push_history(std::int64_t step) {
  if (!scalar_bytes_) return;
  const std::size_t slot = static_cast<std::size_t>(step % options.history);
  backend.copy(history_.at(slot * scalar_bytes_), readings_.data(), scalar_bytes_);
}

std::vector<ProbeReading> Binding::readings() {
  std::vector<std::byte> host(readings_.bytes());
  if (!host.empty()) backend.copy_out(host.data(), readings_.data(), host.size());
  const auto read = [&](auto* device, auto& to) {
    if (device) std::memcpy(&to, host.data() + (reinterpret_cast<std::byte*>(device) - readings_.as<std::byte>()), sizeof to);
  };
  std::vector<ProbeReading> result(slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const ProbeSlot& slot = slots_[i];
    ProbeReading& reading = result[i];
    read(slot.stats, reading.stats);
    read(slot.first, reading.split.first);
    read(slot.rest, reading.split.rest);
    read(slot.dot, reading.split.dot);
    if (slot.exponents) {
      reading.exponents.resize(kExponentBins);
      const auto offset = reinterpret_cast<std::byte*>(slot.exponents) - readings_.as<std::byte>();
      std::memcpy(reading.exponents.data(), host.data() + offset, kExponentBins * sizeof(std::uint64_t));
    }
  }
  return result;
}

std::vector<std::vector<Stats>> Binding::history(std::int64_t steps) {
  const std::int64_t kept = std::min<std::int64_t>(steps, options.history);
  std::vector<std::vector<Stats>> result(static_cast<std::size_t>(kept), std::vector<Stats>(slots_.size()));
  if (kept == 0 || !scalar_bytes_) return result;
  std::vector<std::byte> host(history_.bytes());
  backend.copy_out(host.data(), history_.data(), host.size());
  for (std::int64_t i = 0; i < kept; ++i) {
    const std::size_t slot = static_cast<std::size_t>((steps - kept + i) % options.history);
    std::memcpy(static_cast<void*>(result[static_cast<std::size_t>(i)].data()), host.data() + slot * scalar_bytes_, scalar_bytes_);
  }
  return result;
}

std::vector<std::uint8_t> Binding::alive(int probe) const {
  std::vector<std::uint8_t> flags(alive_units_.at(at(probe)));
  if (!flags.empty()) backend.copy_out(flags.data(), slots_[at(probe)].alive, flags.size());
  return flags;
}

}  // namespace gradflow
