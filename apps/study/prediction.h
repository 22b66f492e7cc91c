// Mean-field predictions for a model of the study, next to what was measured.
#pragma once

#include <span>
#include <vector>

#include "apps/study/results.h"
#include "gradflow/engine/dataset.h"
#include "gradflow/layers/models.h"

namespace gradflow::app {

// Fills predicted_norm of every row, anchored at the measured gradient of the last layer. `batch` holds the
// indices of the training samples that were measured. Rows inside two-layer blocks get none.
void add_predictions(const Model& model, const Dataset& data, std::span<const std::int32_t> batch, std::vector<LayerRow>& rows);

}  // namespace gradflow::app
