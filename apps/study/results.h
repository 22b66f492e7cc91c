// What a study measured: plain data between the runner (which fills it), the verdicts (which read it)
// and the writers of report.json, layers.csv, the figures and report.html.
//
// A network is a chain of L weight layers, numbered from the input: 1 = stem, 2..L-1 = blocks, L = head. z^l is
// the pre-activation stream after weight layer l: in a plain net the output of linear layer l, in a
// residual net the block's output x^l = x^(l-1) + branch (for one-layer branches dL/d(branch output)
// equals dL/dx^l, so plain and residual curves show the same quantity). z^L are the logits.
// Norms are Frobenius norms over the whole batch of the gradient of the MEAN loss.
// Where several seeds were measured, a norm is the root of the mean of its squares over the seeds.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gradflow::app {

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();  // not measured; null in JSON
inline constexpr std::string_view kLoadedWeights = "loaded";  // in the place of an initialization: weights of a file

// One weight layer of one network at one moment.
struct LayerRow {
  int layer = 0;                    // 1..L
  std::string name;                 // "block07.linear"
  double gradient_norm = kMissing;  // |dL/dz^l|
  double gradient_norm_low = kMissing, gradient_norm_high = kMissing;  // smallest and largest seed
  double factor = kMissing;         // |dL/dz^l| / |dL/dz^(l+1)|: what this step back multiplied it by
  double weight_gradient_norm = kMissing;  // |dL/dW^l|
  double weight_norm = kMissing;           // |W^l|
  double update_ratio = kMissing;          // |W_after - W_before| / |W|; missing where no step was taken
  // Learning rate of this step over |W|^2: what turns a weight whose size a batch norm cancels. Missing where
  // no batch norm follows the layer at once.
  double effective_rate = kMissing;
  double z_rms = kMissing;                 // root mean square of z^l
  double activation_mean = kMissing, activation_std = kMissing;  // of phi(.) fed by z^l; missing for the head
  double saturated = kMissing;      // fraction of outputs with |phi'| < 5% of its maximum (sigmoid, tanh)
  double dead = kMissing;           // fraction of units that are <= 0 on every sample seen (ReLU)
  double gradient_zeros = kMissing, gradient_denormals = kMissing;  // fractions of the elements of dL/dz^l
  double nonfinite = 0;             // fraction of dL/dz^l that is NaN or infinite
  double predicted_norm = kMissing; // mean-field prediction of gradient_norm, anchored at layer L; only at
                                    // initialization
  // Residual nets: the gradient that reaches x^(l) from the block above it splits into the part that came by the
  // skip and the part that came by the branch. |skip|, |branch| and the cosine between them.
  double skip_norm = kMissing, branch_norm = kMissing, skip_branch_cosine = kMissing;
  // Share of the elements of dL/dz^l by binary exponent: first_exponent is floor(log2|x|) of shares[0].
  int first_exponent = 0;
  std::vector<double> exponent_shares;
};

// All layers at one moment of training. step 0 = initialization, before any update.
struct Moment {
  int step = 0;
  int seeds = 1;               // how many networks were averaged (initialization: several)
  double loss = kMissing;      // of the measured batch
  std::vector<LayerRow> layers;  // L rows, layer 1 first
};

struct CurvePoint {
  int step = 0;
  double train_loss = kMissing;        // mean since the point before
  double test_loss = kMissing, test_accuracy = kMissing;  // held-out data; accuracy in [0,1]
};

enum class VerdictKind : std::uint8_t {
  vanishes,              // the gradient reaching the first layers is too small a part of what set out
  explodes,
  healthy,               // neither, and the network learns
  dead,                  // exactly zero gradient, or too many units that never fire
  does_not_learn,        // neither vanishing nor exploding nor dead, yet accuracy stays low
  diverged,              // training met a non-finite loss
  not_measured,          // nothing to judge: no gradient was recorded
};

struct Verdict {
  VerdictKind kind = VerdictKind::not_measured;
  std::string headline;  // "vanishes"
  std::string evidence;  // "the gradient shrinks by 0.24x a layer from layer 50 to 1 (1.7e-31 of it
                         // arrives); predicted 0.236"
  // Slope of the straight line through log10 |dL/dz^l| over layers 2..L-1, as a factor: the special steps at
  // the stem and the head (other widths, other inputs) do not bend it. predicted_factor: the same fit.
  double factor_per_layer = kMissing;
  double end_to_end = kMissing;        // |dL/dz^1| / |dL/dz^L|
  double predicted_factor = kMissing;
  double predicted_end_to_end = kMissing;
};

struct NetworkResult {
  std::string id;          // "plain-tanh-xavier-none", "shallow"
  std::string title;       // "plain, tanh, Xavier, no norm"
  std::string model_spec;  // "mlp:depth=50,width=128,act=tanh,skip=off,init=xavier,norm=none"
  bool residual = false;
  std::string activation;  // sigmoid, tanh, relu
  std::string init;        // xavier, he, ..., or kLoadedWeights
  std::string norm;        // none, bn
  int depth = 0, width = 0;
  std::int64_t parameters = 0;
  bool yardstick = false;  // the shallow net
  std::vector<Moment> moments;     // ascending steps; moments[0] is initialization
  std::vector<CurvePoint> curve;
  double final_accuracy = kMissing, final_loss = kMissing;
  std::optional<int> diverged_at;  // step of the first non-finite loss
  std::string diverged_where;      // "output of block03.add"
  Verdict at_init;                 // from moments[0]
  Verdict trained;                 // from the last moment and the curve
};

// Printed with every verdict, never hidden; see apps/study/verdict.h for what they are compared with and why.
struct Thresholds {
  double vanish_below = 1e-3;       // weakest of layers 2..L-1, relative to layer L-1
  double explode_above = 1e3;       // strongest of them
  double dead_fraction = 0.9;       // of the units of a layer never firing; or an all-zero gradient
  double learn_fraction = 0.6;      // learns if (accuracy - chance) >= this x (yardstick accuracy - chance)
};

// The pair the argument is about: one deep network of convolutions with batch norm, without and with skips.
// Here z^l is the output of convolution l itself, before its batch norm, in the residual network as well.
struct PairResult {
  bool full_size = false;
  std::string why_not;      // one line if the pair was not run; then all else means nothing
  std::string data;         // "images 14x14x1, ..."
  std::string reduction;    // what is smaller than in the paper's networks, in words; empty at full size
  std::string optimizer;
  double learning_rate = 0;
  int batch = 0, steps = 0, held_out = 0;  // held_out: test images behind the final accuracy
  double seconds = 0;
  std::vector<NetworkResult> networks;  // plain first
};

struct StudyResult {
  std::string title;
  std::string gradflow_version, git_revision, build, date_utc;
  std::string command;              // repeats the study
  std::string device, device_model, libraries, precision;
  std::string data;                 // "fashion-mnist: 60000 + 10000 images 28x28x1, 10 classes"
  std::string optimizer, schedule;
  std::uint64_t seed = 0;
  int init_seeds = 0, batch = 0, steps = 0, classes = 10;
  int held_out = 0, held_out_last = 0;  // test images behind a point of a curve, and behind its last one; 0: not said
  double seconds = 0;
  bool interrupted = false;         // stopped by Ctrl-C: what is here is valid but incomplete
  Thresholds thresholds;
  std::vector<NetworkResult> networks;  // yardstick first
  std::optional<PairResult> pair;
};

}  // namespace gradflow::app
