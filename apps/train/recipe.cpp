#include "apps/train/recipe.h"

#include <string>

#include "gradflow/engine/spec_text.h"
#include "gradflow/kernels/error.h"

namespace gradflow::app {
namespace {

constexpr std::int64_t kWarmedDepth = 110;

template <class T, class V>
void fill(std::optional<T>& option, const V& value) {
  if (!option) option = T(value);
}

}  // namespace

TrainOptions with_recipe(TrainOptions o) {
  if (!o.recipe) return o;
  if (*o.recipe != "he2015") throw_unknown_name("recipe", *o.recipe, *o.recipe, {"he2015"});
  if (o.optimizer)
    throw UserError("--recipe he2015 chooses the optimizer (sgd); leave out --optimizer, or the recipe");
  o.optimizer = "sgd";
  fill(o.learning_rate, 0.1);
  fill(o.momentum, 0.9);
  fill(o.weight_decay, 1e-4);
  fill(o.batch, 128);
  fill(o.augment, "standard");
  if (!o.epochs) fill(o.steps, 64000);
  bool warmed = false;
  if (o.model) {
    const ModelSpec model = parse_model(*o.model);
    warmed = model.conv && model.conv->depth >= kWarmedDepth;
  }
  fill(o.schedule,
       std::string("step:at=32000/48000,factor=0.1") + (warmed ? ",warmup=400,warmup_at=0.1" : ""));
  return o;
}

}  // namespace gradflow::app
