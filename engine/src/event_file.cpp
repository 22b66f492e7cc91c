#include "gradflow/engine/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>

#include "gradflow/engine/file.h"
#include "gradflow/engine/text.h"
#include "gradflow/kernels/error.h"

namespace gradflow {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    table[i] = c;
  }
  return table;
}

template <class T>
void append_bytes(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

// Fields of a protobuf message, by number.
class Message {
 public:
  Message& number(int field, double value) {
    key(field, 1);
    append_bytes(bytes_, value);
    return *this;
  }
  Message& number(int field, float value) {
    key(field, 5);
    append_bytes(bytes_, value);
    return *this;
  }
  Message& integer(int field, std::int64_t value) {
    key(field, 0);
    varint(static_cast<std::uint64_t>(value));
    return *this;
  }
  Message& text(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return text(field, value.bytes_); }
  Message& numbers(int field, std::span<const double> values) {  // packed
    return text(field, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
  void key(int field, std::uint64_t type) { varint(static_cast<std::uint64_t>(field) << 3 | type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
};

Message event(std::int64_t step, double seconds) { return Message().number(1, seconds).integer(2, step); }

Message histogram_message(const EventFile::Histogram& h) {
  if (h.limits.empty() || h.limits.size() != h.counts.size())
    throw InternalError(
        fmt::format("histogram {}: {} limits, {} counts", h.tag, h.limits.size(), h.counts.size()));
  double count = 0, sum = 0, squares = 0, low = h.least;
  for (std::size_t i = 0; i < h.limits.size();
       low = h.limits[i++]) {  // as if all lay in the middle of their bucket
    const double middle = (low + h.limits[i]) / 2;
    count += h.counts[i];
    sum += h.counts[i] * middle;
    squares += h.counts[i] * middle * middle;
  }
  return Message()
      .number(1, h.least)
      .number(2, h.limits.back())
      .number(3, count)
      .number(4, sum)
      .number(5, squares)
      .numbers(6, h.limits)
      .numbers(7, h.counts);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) noexcept {
  static constexpr std::array<std::uint32_t, 256> kTable = make_table();
  std::uint32_t c = 0xffffffffu;
  for (const char byte : bytes) c = kTable[(c ^ static_cast<unsigned char>(byte)) & 0xffu] ^ c >> 8;
  return ~c;
}

EventFile::EventFile(const std::filesystem::path& folder, double seconds) {
  ensure_output_directory(folder);
  path_ = folder / fmt::format("events.out.tfevents.{:.0f}.gradflow.{}", seconds, ::getpid());
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0)
    throw UserError(fmt::format("cannot write {}: {}", quote(path_.string(), 400), system_message(errno)));
  write_record(Message().number(1, seconds).text(3, "brain.Event:2").bytes());
}

EventFile::~EventFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void EventFile::write_restart(std::int64_t step, double seconds) {
  constexpr std::int64_t kStart = 1;
  write_record(event(step, seconds).message(7, Message().integer(1, kStart)).bytes());
}

void EventFile::write_scalars(std::int64_t step, double seconds, std::span<const Scalar> scalars) {
  Message summary;
  for (const Scalar& s : scalars)
    summary.message(1, Message().text(1, s.tag).number(2, static_cast<float>(s.value)));
  write_record(event(step, seconds).message(5, summary).bytes());
}

void EventFile::write_histograms(std::int64_t step, double seconds, std::span<const Histogram> histograms) {
  Message summary;
  for (const Histogram& h : histograms)
    summary.message(1, Message().text(1, h.tag).message(5, histogram_message(h)));
  write_record(event(step, seconds).message(5, summary).bytes());
}

void EventFile::write_record(const std::string& message) {
  std::string record;
  append_bytes(record, static_cast<std::uint64_t>(message.size()));
  append_bytes(record, masked(crc32c(record)));
  record += message;
  append_bytes(record, masked(crc32c(message)));
  for (std::size_t done = 0; done < record.size();) {
    const ssize_t written = ::write(descriptor_, record.data() + done, record.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      throw UserError(fmt::format("cannot write {}: {}", quote(path_.string(), 400), system_message(errno)));
    done += static_cast<std::size_t>(written);
  }
}

}  // namespace gradflow
