// What findings.cpp and findings_more.cpp share; of no use elsewhere.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/report/findings.h"

namespace gradflow::app {

using Networks = std::vector<const NetworkResult*>;

// Networks with moments that share skip, activation and norm; one per initialization.
Networks family(const StudyResult& study, bool residual, std::string_view activation, std::string_view norm);

// A finding about these networks: its theory field compares their measured factors with the predicted ones.
Finding about(std::string id, const Networks& networks);

// "Xavier: ×0.236 a layer (predicted 0.236), 1.7·10⁻³¹ arrives; He: ..."
std::string measured_list(const Networks& networks);

// Smallest and largest finite end-to-end ratio at initialization; nulls if there is none.
std::pair<const NetworkResult*, const NetworkResult*> extremes_at_init(const Networks& networks);

// |dL/dz^1| / |dL/dz^(L-1)| at initialization: what the blocks do, without the head. NaN for fewer than 3
// layers.
double block_ratio(const NetworkResult& network);
// Smallest and largest block_ratio; nulls if there is none.
std::pair<const NetworkResult*, const NetworkResult*> extremes_over_blocks(const Networks& networks);

// "ReLU, He"
std::string short_title(const NetworkResult& network);

std::optional<Finding> weight_gradients(const StudyResult& study);
std::optional<Finding> learning(const StudyResult& study);
std::optional<Finding> predictions(const StudyResult& study);
std::optional<Finding> precision(const StudyResult& study);

}  // namespace gradflow::app
