// Networks of convolutions: their text and their graph. models.cpp is the entrance.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gradflow/engine/spec_text.h"
#include "gradflow/layers/models.h"

namespace gradflow {

bool is_conv_net(std::string_view name);
std::vector<std::string> conv_net_names();

// Reads all keys and calls finish().
ConvNetSpec parse_conv_net(SpecReader& reader);

// From model.x to the logits; model.spec.conv says what.
ValueId build_conv_net(Model& model, std::int64_t classes);

// Keys that every family has. Spec is MlpSpec or ConvNetSpec; `norm` is the default.
template <class Spec>
void read_common(SpecReader& reader, Spec& spec, std::string_view norm);

// The scale of residual branches, of which there are `blocks`; behind read_common.
template <class Spec>
void read_branch_scale(SpecReader& reader, std::int64_t blocks, Spec& spec);

}  // namespace gradflow
