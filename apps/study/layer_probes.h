// Which probes a study puts on a model, and how their readings become rows of a report.
#pragma once

#include <vector>

#include "apps/study/results.h"
#include "gradflow/engine/probe.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

class LayerProbes {
 public:
  // with_updates: the plan has an optimizer, so updates can be measured. own_outputs: z^l is what weight layer l
  // itself puts out, also at the end of a residual block, where it would be the block's output otherwise.
  LayerProbes(const Model& model, bool with_updates, bool own_outputs = false);

  const std::vector<ProbeRequest>& requests() const noexcept { return requests_; }

  // Adds one set of readings (of one network) to the average.
  void add(const std::vector<ProbeReading>& readings);
  int added() const noexcept { return added_; }
  // Rows 1..L; norms are roots of mean squares over what was added, fractions are means.
  std::vector<LayerRow> rows() const;

 private:
  struct Indices {  // into requests_; kNobody where a layer has no such probe
    int z = kNobody, gradient = kNobody, activation = kNobody, weight = kNobody, weight_gradient = kNobody, update = kNobody;
    bool split = false, saturates = false;
  };
  struct Sums {
    double gradient = 0, gradient_low = 0, gradient_high = 0, weight_gradient = 0, weight = 0, update = 0;
    double z = 0, mean = 0, deviation = 0, saturated = 0, zeros = 0, denormals = 0, nonfinite = 0;
    double skip = 0, branch = 0, dot = 0;
    std::vector<double> exponents;
  };
  std::vector<std::string> names_;
  std::vector<Indices> indices_;
  std::vector<Sums> sums_;
  std::vector<ProbeRequest> requests_;
  int added_ = 0;

  int request(ProbeTarget target, int id);
};

}  // namespace gradflow::app
