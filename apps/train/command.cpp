#include "apps/train/command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "apps/common/network.h"
#include "apps/common/option_checks.h"
#include "apps/train/train.h"

namespace gradflow::app {
namespace {

constexpr const char* kNotes = R"(
Optimizers, with what may follow the name:
  sgd       [:momentum=0,weight_decay=0]
  nesterov  [:momentum=0.9,weight_decay=0]
  adam      [:beta1=0.9,beta2=0.999,epsilon=1e-8,weight_decay=0]
  adamw     [:beta1=0.9,beta2=0.999,epsilon=1e-8,weight_decay=0.01]

Schedules (factors on --lr):
  constant    step:every=N,factor=0.1    step:at=A/B,factor=0.1
  cosine[:final=0]    one-cycle[:peak_at=0.3,start=0.04,final=0]
  any of them with warmup=N[,warmup_from=R], a linear rise from R * lr over N steps, or warmup=N,warmup_at=R, N steps at
  R * lr and then a jump to lr

Augmentation:
  standard[:crop=4,flip=on,mean=pixel]    shifted by up to so many pixels, mirrored or not, minus the mean image
  (held-out images are only freed of the mean)

Recipe he2015: sgd, --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --batch 128 --steps 64000 --augment standard
  --schedule step:at=32000/48000,factor=0.1 (from depth 110 on with warmup=400,warmup_at=0.1:
  400 steps at 0.01, then 0.1; the paper goes on at 0.01 until the training error is below 80 %, about 400 steps)

In DIR: log.jsonl, one JSON object a line; last.safetensors and best.safetensors, which PyTorch and NumPy read;
summary.json, what ran and how it ended; and report/, the gradient by layer over the steps that were measured, as
`gradflow demo` shows it (a report is also written when a run is stopped or diverges). Steps that are not measured run
without probes; if a loss is not finite, the steps since the last look are repeated with all of them, to name the layer
and the tensor where it began. Whatever stops a run (Ctrl-C, kill -9, a power cut), --resume goes on from the last
checkpoint and ends with the same bits as a run that was not stopped.

Exit codes: 0 done, 1 the loss became NaN or infinite, 2 something asked for cannot be had, 130 and 143 stopped by
Ctrl-C and SIGTERM.

Examples:
  gradflow train --model mlp:depth=20,width=128,act=relu,skip=on,norm=bn --data fashion-mnist \
      --epochs 5 --optimizer sgd --lr 0.05 --momentum 0.9 --schedule cosine --out runs/first
  gradflow train --resume --out runs/first
  gradflow train --model resnet:depth=20 --data cifar10:DIR --recipe he2015 --out runs/resnet20
  gradflow train --model mlp:depth=4,width=64 --data synthetic --steps 200 --optimizer adam --lr 1e-3)";

}  // namespace

void add_train(CLI::App& app, std::function<int()>& run) {
  const auto o = std::make_shared<TrainOptions>();
  CLI::App* c = app.add_subcommand("train", "train a network; keeps log, checkpoints and summary");
  c->add_option("--model", o->model, "network, e.g. mlp:depth=50,act=tanh (below)")->type_name("SPEC");
  c->add_option("--data", o->data, kDataHelp)->type_name("SPEC");
  c->add_option("--epochs", o->epochs, "length of the run in epochs")->check(whole_number(1, kMostSteps))->type_name("N");
  c->add_option("--steps", o->steps, "or in steps")->check(whole_number(1, kMostSteps))->type_name("N");
  c->add_option("--optimizer", o->optimizer, "sgd, nesterov, adam or adamw (below)")->type_name("SPEC");
  c->add_option("--lr", o->learning_rate, "base learning rate")->check(finite_number_from_0())->type_name("X");
  c->add_option("--momentum", o->momentum, "of sgd and nesterov")->check(finite_number_from_0())->type_name("X");
  c->add_option("--weight-decay", o->weight_decay, "of the weights; biases and norms have none")
      ->check(finite_number_from_0())
      ->type_name("X");
  c->add_option("--schedule", o->schedule, "of the learning rate [constant] (below)")->type_name("SPEC");
  c->add_option("--augment", o->augment, "how training images are varied [none] (below)")->type_name("SPEC");
  c->add_option("--recipe", o->recipe, "he2015: settings of He et al. 2015 for whatever is not given (below)")
      ->type_name("NAME");
  c->add_option("--batch", o->batch, "samples of a step [128]")->check(whole_number(1, kMostSamples))->type_name("N");
  c->add_option("--seed", o->seed, "of weights and batch order [1]")->check(whole_number(0))->type_name("N");
  c->add_option("--dtype", o->dtype, "f32; bf16: activations and their gradients, f32 parameters; f64: cpu only [f32]")
      ->check(one_of({"f32", "bf16", "f64"}))
      ->type_name("T");
  c->add_flag("--tf32", o->tf32, "let CUDA multiply f32 numbers as TF32");
  add_no_fuse(*c, o->no_fuse);
  c->add_option("--device", o->device, "auto, cpu, cuda or cuda:N")->type_name("D")->capture_default_str();
  c->add_option("--out", o->out, "folder for log, checkpoints and summary; without it nothing is kept")
      ->type_name("DIR");
  c->add_option("--weights", o->weights,
                "begin with the weights of a safetensors file: a checkpoint, or a PyTorch state_dict")
      ->type_name("FILE");
  add_memory_limit(*c, o->memory_limit);
  c->add_flag("--stream", o->stream,
              "hand batches to the device one by one, the next one read during a step, CIFAR's and\n"
              "uncompressed IDX files from the disk; same bits [where the data do not fit on the device]");
  c->add_flag("--resume", o->resume,
              "go on with the run in --out; all other settings come from its checkpoint");
  c->add_option("--eval-every", o->eval_every, "steps between evaluations on all held-out data [an epoch]")
      ->check(whole_number(1, kMostSteps))
      ->type_name("N");
  c->add_option("--checkpoint-every", o->checkpoint_every, "steps between checkpoints [an epoch]")
      ->check(whole_number(1, kMostSteps))
      ->type_name("N");
  c->add_option("--probe-every", o->probe_every, "steps between measurements of every layer, besides the first one; 0: none [100]")
      ->check(whole_number(0, kMostSteps))
      ->type_name("N");
  c->add_flag("--tensorboard", o->tensorboard, "an event file for TensorBoard, too, in DIR/tensorboard");
  c->add_flag("--quiet", o->quiet, "print errors only");
  c->footer(fmt::format("Models:\n{}{}", model_help(), kNotes));
  c->callback([&run, o] {
    run = [o] {
      o->terminal = detect_terminal(STDOUT_FILENO);
      return run_train(*o, std::cout, std::cerr);
    };
  });
}

}  // namespace gradflow::app
