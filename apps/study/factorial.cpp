#include <fmt/format.h>

#include "apps/study/study.h"

namespace gradflow::app {
namespace {

NetworkChoice choice(const StudyOptions& o, bool residual, std::string_view act, std::string_view init, std::string_view norm) {
  NetworkChoice c;
  c.residual = residual;
  c.activation = act;
  c.init = init;
  c.norm = norm;
  c.depth = o.depth;
  c.width = o.width;
  c.id = fmt::format("{}-{}-{}-{}", residual ? "residual" : "plain", act, init, norm);
  c.title = fmt::format("{}, {}, {}, {}", residual ? "residual" : "plain", act == "relu" ? "ReLU" : act,
                        init == "he" ? "He" : "Xavier", norm == "bn" ? "batch norm" : "no norm");
  c.model_spec = fmt::format("mlp:depth={},width={},act={},skip={},init={},norm={}", o.depth, o.width, act,
                             residual ? "on" : "off", init, norm);
  return c;
}

}  // namespace

NetworkResult unmeasured(const NetworkChoice& choice) {
  NetworkResult r;
  r.id = choice.id;
  r.title = choice.title;
  r.model_spec = choice.model_spec;
  r.residual = choice.residual;
  r.activation = choice.activation;
  r.init = choice.init;
  r.norm = choice.norm;
  r.depth = choice.depth;
  r.width = choice.width;
  r.yardstick = choice.yardstick;
  return r;
}

std::vector<NetworkChoice> factorial(const StudyOptions& o) {
  std::vector<NetworkChoice> all;
  NetworkChoice shallow = choice(o, false, "relu", "he", "none");
  shallow.yardstick = true;
  shallow.depth = o.yardstick_depth;
  shallow.id = "shallow";
  shallow.title = fmt::format("shallow ({} layers), ReLU, He, no norm", o.yardstick_depth);
  shallow.model_spec = fmt::format("mlp:depth={},width={},act=relu,skip=off,init=he,norm=none", o.yardstick_depth, o.width);
  all.push_back(shallow);
  for (const bool residual : {false, true})
    for (const char* act : {"sigmoid", "tanh", "relu"})
      for (const char* init : {"xavier", "he"})
        for (const char* norm : {"none", "bn"}) all.push_back(choice(o, residual, act, init, norm));
  return all;
}

}  // namespace gradflow::app
