// Event files as TensorBoard reads them: TFRecords of tensorflow.Event messages, written by hand.
//
//   EventFile events(folder, seconds);  // folder/events.out.tfevents.<seconds>.gradflow.<pid>
//   events.write_scalars(step, seconds, {{"loss/train", 0.5}, {"learning_rate", 0.1}});
//
// A record is: length (u64), its CRC, the message, its CRC; all little-endian; each CRC is CRC-32C, rotated
// right by 15 bits plus 0xa282ead8. Messages follow tensorflow/core/util/event.proto and
// framework/summary.proto: what is written here are the fields wall_time, step, file_version, session_log and
// summary of an Event, and tag, simple_value and histo of a Summary.Value. Each record goes to the system in
// one write, so that a reader beside the run sees whole ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gradflow {

// Of the bytes, as in RFC 3720 (iSCSI): of "123456789" it is 0xe3069283.
std::uint32_t crc32c(std::string_view bytes) noexcept;

class EventFile {
 public:
  struct Scalar {
    std::string tag;  // "loss/train": what is before the first / groups charts
    double value = 0;
  };
  // Bucket i counts numbers above limits[i-1] (or from `least` on, for the first) up to limits[i].
  struct Histogram {
    std::string tag;
    double least = 0;
    std::vector<double> limits, counts;  // limits ascending
  };

  // Creates the folder and a new file in it. `seconds` since 1970, as in all events. UserError naming the
  // path if that fails.
  EventFile(const std::filesystem::path& folder, double seconds);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }

  // A run goes on behind `step`: readers drop what earlier files of the folder hold from that step on.
  void write_restart(std::int64_t step, double seconds);
  void write_scalars(std::int64_t step, double seconds, std::span<const Scalar> scalars);
  void write_histograms(std::int64_t step, double seconds, std::span<const Histogram> histograms);

 private:
  void write_record(const std::string& message);

  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace gradflow
