#!/usr/bin/env python3
"""gradflow beside PyTorch on the CPU: the same training step timed in turn, and the same gradients.

    apt-get install python3-torch libopenblas0-openmp
    scripts/compare_torch.py [--rounds 7] [--threads 2] [--json FILE] [--model SPEC ...]

Speed: one step = forward, cross-entropy, backward, SGD (momentum 0.9, weight decay 1e-4, none on biases
and norms) on one batch in memory.
Each round runs both programs, one after the other, each in a process of its own, so that a machine whose
speed drifts treats both alike; printed are the medians of the rounds and the ratio round by round.
PyTorch gets its better matrix library: with Debian's default OpenBLAS, whose threads fight PyTorch's, it is
several times slower, and a comparison with that would be unfair. It gets the better of that library's kernels, too: on processors
younger than itself it takes some that are three times slower than others it has, so each is tried first (OPENBLAS_CORETYPE).

Correctness: gradflow writes its batch, weights, loss and gradients as safetensors; PyTorch computes loss and
gradients from the same weights and batch, and the largest differences are printed, relative to the
largest element of each tensor. For a ResNet-18 with torchvision's names it goes the other way as well: the
state_dict of a PyTorch module, written as safetensors, is loaded by gradflow (--weights), and the module computes the
loss and the gradients of the same batch. The exit code is 1 if one is above 1e-4 (1e-8 in f64), which sums in another order
reach nowhere near at these sizes, and a wrong formula exceeds by far. On CUDA, which has no f64, networks with kinks are left out, the
others are compared in f32, and the limit is 1e-3: 34 layers with batch norm of 4 images differ by 1.4e-4 between two CPU programs.

bf16 networks are compared with PyTorch's autocast to bfloat16, in channels_last: in speed as above; in gradients by the norm
of each weight's difference, relative to its gradient's. The two programs round at different places: a network of 20 layers
differs from f32 by 6 % (tests/layers/bf16_test.cpp says why), so two of them by 9 %; the limit is 15 %.
"""
import argparse
import json
import math
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch_models

ROOT = Path(__file__).resolve().parent.parent
SPEED = {  # by the name that --only takes: model, data, dtype, the same for torch_models
    "mlp": ("mlp:depth=50,width=256,act=relu,init=he", "synthetic:features=256", "f32", "mlp-50"),
    "resnet20": ("resnet:depth=20", "synthetic:height=32,width=32,channels=3,n=1024,test=128", "f32", "resnet-20"),
    "resnet20-bf16": ("resnet:depth=20", "synthetic:height=32,width=32,channels=3,n=1024,test=128", "bf16", "resnet-20"),
}
# Every family and what can be chosen in it: depth, shortcut, version, normalization, what stands on a branch.
CHECK_MODELS = [
    "mlp:depth=6,width=64,act=relu,init=he",
    "mlp:depth=6,width=64,act=tanh,init=xavier,skip=on",
    "mlp:depth=6,width=64,act=sigmoid,init=xavier,norm=bn",
    "mlp:depth=8,width=64,act=relu,init=he,norm=bn,skip=on,branch=2,branch_scale=0.5",
    "mlp:depth=8,width=64,act=tanh,skip=on,branch_scale=skipinit,bias=off",
    "mlp:depth=8,width=64,act=relu,skip=on,branch=2,init=fixup",
    "mlp:depth=50,width=256,act=relu,init=he",
    "plain:depth=20",
    "plain:depth=20,norm=none",
    "plain:depth=14,version=v2,act=sigmoid,init=xavier",
    "resnet:depth=20",
    "resnet:depth=20,shortcut=B,act=tanh",
    "resnet:depth=14,shortcut=C",
    "resnet:depth=20,version=v2",
    "resnet:depth=14,version=v2,shortcut=B,branch_scale=1/sqrt(L)",
    "resnet:depth=20,version=v2,shortcut=C,branch_scale=0.5",
    "resnet:depth=20,norm=none,branch_scale=skipinit,act=tanh",
    "resnet:depth=20,branch_scale=rezero",
    "resnet:depth=14,version=v2,norm=none,branch_scale=rezero,act=tanh",
    "resnet:depth=14,norm=none,init=fixup,act=tanh",
    "resnet:depth=14,version=v2,shortcut=B,norm=none,init=fixup,act=tanh",
    "resnet18",
    "resnet34:act=tanh",
    "resnet34:shortcut=A,version=v2,act=tanh",
    "resnet50",
    "resnet50:version=v2,shortcut=C,act=tanh",
    "resnet50:norm=none,branch_scale=skipinit,act=tanh",
]
BF16_MODELS = ["mlp:depth=8,width=64,act=tanh,init=xavier", "resnet:depth=20,act=tanh"]
LIMIT = {"f32": 1e-4, "f64": 1e-8, "bf16": 0.15}


def check_inputs(model, device="cpu"):
    """Data, batch and type of a gradient comparison. Of the millions of ReLU inputs that batch norm spreads around zero in
    a convolutional network, some lie within f32's rounding of zero: the two programs then differ in their sign, and
    gradients by percents, without either being wrong. Such networks are compared in f64."""
    kinks = "norm=none" not in model and ("act=" not in model or "act=relu" in model)
    if model.startswith("mlp"):
        return "synthetic:features=256", 128, "f32"
    if model[6:].split(":")[0].isdigit():  # resnet50
        return "synthetic:height=64,width=64,channels=3,n=256,test=16,classes=100", 4, "f64" if kinks or device == "cpu" else "f32"
    return "synthetic:height=32,width=32,channels=3,n=1024,test=128", 16, "f64" if kinks else "f32"


def parse_spec(spec):
    values = dict(item.split("=", 1) for item in spec.partition(":")[2].split(",") if item)
    return {"act": "relu", "skip": "off", "norm": "none", "branch": "1", "branch_scale": "1", **values}


def branch_scale(options, blocks):
    """The constant on every branch; a learned number is a weight."""
    if options["branch_scale"] == "1/sqrt(L)":
        return 1 / math.sqrt(blocks)
    return 1 if options["branch_scale"] in ("skipinit", "rezero") else float(options["branch_scale"])


def scalar(weights, name, v):
    """A learned number and a scalar bias, where the network has them."""
    v = v * weights[name + ".scale"] if name + ".scale" in weights else v
    return v + weights[name + ".shift"] if name + ".shift" in weights else v


def conv_forward(torch, spec, weights, x):
    """The convolutional networks of the same header. Weights lie as [outputs, height, width, channels]."""
    functional = torch.nn.functional
    options = parse_spec(spec)
    act = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda v: v}[options["act"]]
    preact, residual = options.get("version") == "v2", not spec.startswith("plain")
    blocks = sorted({tuple(int(n) for n in name[5:].split(".")[:2]) for name in weights if name.startswith("layer")})
    scale = branch_scale(options, len(blocks))

    def conv(name, v, stride):
        w = weights[name + ".weight"].permute(0, 3, 1, 2)
        return functional.conv2d(v, w, weights.get(name + ".bias"), stride, (w.shape[2] - 1) // 2)

    def norm(name, v):
        if name + ".weight" not in weights:
            return v
        return functional.batch_norm(v, None, None, weights[name + ".weight"], weights[name + ".bias"], training=True)

    def bias(name, v):  # fixup's, and the learned number at the end of a branch
        return scalar(weights, name, v)

    imagenet = weights["conv1.weight"].shape[1] == 7
    x = conv("conv1", x.permute(0, 3, 1, 2), 2 if imagenet else 1)
    if not preact:
        x = act(bias("bias1", norm("bn1", x)))
    if imagenet:
        x = functional.max_pool2d(x, 3, 2, 1)
    for stage, index in blocks:
        name = f"layer{stage}.{index}."
        stride = 2 if index == 0 and stage > 1 else 1
        count = 3 if name + "conv3.weight" in weights else 2
        out = weights[f"{name}conv{count}.weight"].shape[0]
        branch = act(bias(name + "bias1a", norm(name + "bn1", x))) if preact else x
        branch = bias(name + ("bias1b" if preact else "bias1a"), branch)
        if name + "downsample.0.weight" in weights:
            skip = conv(name + "downsample.0", branch, stride)
            skip = skip if preact else norm(name + "downsample.1", skip)
        else:
            skip = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, out - x.shape[1]))
        for k in range(1, count + 1):
            if k > 1:
                branch = act(bias(f"{name}bias{k}a", norm(f"{name}bn{k}", branch))) if preact else branch
                branch = bias(f"{name}bias{k}{'b' if preact else 'a'}", branch)
            branch = conv(f"{name}conv{k}", branch, stride if k == count - 1 else 1)
            if not preact:
                branch = norm(f"{name}bn{k}", branch)
                branch = act(bias(f"{name}bias{k}b", branch)) if k < count else branch
        branch = bias(name + "branch", branch)
        x = skip + scale * branch if residual else branch
        x = x if preact else act(x)
    x = act(bias("bias1", norm("bn", x))) if preact else x
    return functional.linear(bias("bias2", x.mean((2, 3))), weights["fc.weight"], weights["fc.bias"])


def torch_forward(torch, spec, weights, x):
    """The network that layers/include/gradflow/layers/models.h describes, from its parameter names alone."""
    if not spec.startswith("mlp"):
        return conv_forward(torch, spec, weights, x)
    functional = torch.nn.functional
    options = parse_spec(spec)
    act = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda v: v}[options["act"]]

    def linear(name, v):
        return functional.linear(v, weights[name + ".weight"], weights.get(name + ".bias"))

    def unit(block, suffix, v):
        v = scalar(weights, f"{block}.bias{suffix}a", v)
        if options["norm"] == "bn":
            norm = f"{block}.norm{suffix}"
            v = functional.batch_norm(v, None, None, weights[norm + ".scale"], weights[norm + ".shift"], training=True)
        v = scalar(weights, f"{block}.bias{suffix}b", act(v))
        return linear(f"{block}.linear{suffix}", v)

    blocks = sorted({name.split(".")[0] for name in weights if name.startswith("block")})
    z = linear("stem.linear", x)
    for block in blocks:
        if options["skip"] == "off":
            z = unit(block, "", z)
        else:
            branch = z
            for k in range(1, int(options["branch"]) + 1):
                branch = unit(block, "" if options["branch"] == "1" else str(k), branch)
            z = z + branch_scale(options, len(blocks)) * scalar(weights, block + ".branch", branch)
    return unit("head", "", z)


def measure_step(program, device, model, data, batch, dtype, folder, weights=None):
    """(every tensor of one forward and backward pass, the loss) of gradflow."""
    import torch
    tensors_file, json_file = Path(folder) / "t.safetensors", Path(folder) / "m.json"
    command = [program, "measure", "--device", device, "--model", model, "--data", data, "--batch", str(batch), "--dtype", dtype,
               "--save-tensors", tensors_file, "--json", json_file]
    subprocess.run(command + (["--weights", weights] if weights else []), check=True, stdout=subprocess.DEVNULL)
    return torch_models.read_tensors(torch, tensors_file), json.loads(json_file.read_text())["loss"]


def awakened(torch, tensors):
    """The same weights, but with noise on those that are all alike: where a branch is multiplied by zero or the classifier is zero, no
    gradient flows, and nothing would be compared. In PyTorch's layout, with the running statistics that a file must hold."""
    torch.manual_seed(5)
    weights = {n: t for n, t in tensors.items() if f"grad/{n}" in tensors and "activation/" not in n and n != "x"}
    for name, t in list(weights.items()):
        if (t == t.flatten()[0]).all():
            t = t + 0.3 * torch.randn(t.shape, dtype=t.dtype) / (t.shape[-1] ** 0.5 if t.dim() > 1 else 1)
        weights[name] = t.permute(0, 3, 1, 2) if t.dim() == 4 else t
        norm = name.removesuffix(".weight")
        if t.dim() == 1 and norm != name:
            weights[norm + ".running_mean"], weights[norm + ".running_var"] = torch.zeros_like(t), torch.ones_like(t)
    return weights


def check(program, device, model, data, batch, dtype):
    """Largest relative difference of the loss and of any gradient between gradflow and PyTorch."""
    import torch
    with tempfile.TemporaryDirectory() as folder:
        tensors, loss_here = measure_step(program, device, model, data, batch, dtype, folder)
        if any(word in model for word in ("fixup", "rezero", "skipinit")):
            file = Path(folder) / "w.safetensors"
            write_safetensors(file, awakened(torch, tensors))
            tensors, loss_here = measure_step(program, device, model, data, batch, dtype, folder, file)
    names = [n for n in tensors if f"grad/{n}" in tensors and "activation/" not in n and n not in ("x", "labels")]
    weights = {n: tensors[n].requires_grad_() for n in names}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        logits = torch_forward(torch, model, weights, tensors["x"])
    loss = torch.nn.functional.cross_entropy(logits.float() if dtype == "bf16" else logits, tensors["labels"].long())
    loss.backward()
    worst, worst_name = 0.0, ""
    for name, weight in weights.items():
        ours, theirs = tensors["grad/" + name], weight.grad
        if dtype == "bf16":
            if weight.dim() == 1:  # biases, scales and shifts: few numbers, sums that cancel
                continue
            difference = ((ours - theirs).norm() / theirs.norm()).item()
            if not difference <= worst:
                worst, worst_name = difference, name
            continue
        scale = theirs.abs().max().item()
        # A bias before batch norm has no effect: its gradient is rounding alone, measured against the weight's.
        if name.endswith(".bias"):
            scale = max(scale, weights[name[:-4] + "weight"].grad.abs().max().item())
        difference = (ours - theirs).abs().max().item() / scale if scale else (ours - theirs).abs().max().item()
        if not difference <= worst:
            worst, worst_name = difference, name
    return {"model": model, "dtype": dtype, "loss_gradflow": loss_here, "loss_torch": loss.item(),
            "loss_difference": abs(loss_here - loss.item()) / abs(loss.item()),
            "gradient_difference": worst, "worst_tensor": worst_name, "tensors": len(names)}


def write_safetensors(path, tensors):
    """name -> torch tensor, as the safetensors format has it."""
    kinds = {"torch.float64": "F64", "torch.float32": "F32", "torch.int64": "I64"}
    header, data = {}, b""
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        raw = tensor.detach().contiguous().numpy().tobytes()
        header[name] = {"dtype": kinds[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def check_round_trip(program):
    """A PyTorch module's weights through a file into gradflow: the module's loss and gradients against gradflow's."""
    import torch
    torch.manual_seed(3)
    module = torch_models.imagenet_resnet(torch, 18, 100)
    data, batch, dtype = check_inputs("resnet18")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "w.safetensors"
        write_safetensors(weights, module.state_dict())
        tensors, loss_here = measure_step(program, "cpu", "resnet18", data, batch, dtype, folder, weights)
    module = module.double()
    loss = torch.nn.functional.cross_entropy(module(tensors["x"].permute(0, 3, 1, 2)), tensors["labels"].long())
    loss.backward()
    worst, worst_name = 0.0, ""
    for name, parameter in module.named_parameters():
        ours = tensors["grad/" + name]
        ours = ours.permute(0, 3, 1, 2) if ours.dim() == 4 else ours
        difference = (ours - parameter.grad).abs().max().item() / parameter.grad.abs().max().item()
        if not difference <= worst:
            worst, worst_name = difference, name
    return {"model": "resnet18, weights from PyTorch", "dtype": dtype, "loss_gradflow": loss_here, "loss_torch": loss.item(),
            "loss_difference": abs(loss_here - loss.item()) / abs(loss.item()),
            "gradient_difference": worst, "worst_tensor": worst_name, "tensors": len(list(module.parameters()))}


def peer(name, threads, steps):
    """One timing of the PyTorch step; run in a process of its own. Prints milliseconds a step."""
    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x, _ = torch_models.training_peer(torch, SPEED[name][3], 128)
    # foreach: one fused pass over all parameters, its faster way here.
    optimizer = torch.optim.SGD(torch_models.decay_groups(model.parameters(), 1e-4), lr=1e-3, momentum=0.9, foreach=True)
    labels = torch.randint(0, 10, (128,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("-bf16")):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()

    for _ in range(min(10, steps)):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"median_ms": statistics.median(times) * 1e3, "torch": torch.__version__,
                      "parameters": sum(p.numel() for p in model.parameters())}))


def peer_environment(threads, kernels):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    for folder in Path("/usr/lib").glob("*/openblas-openmp"):
        environment["LD_LIBRARY_PATH"] = str(folder)
    if kernels:
        environment["OPENBLAS_CORETYPE"] = kernels
    return environment


def openblas_kernels():
    """Names of the kernels that OpenBLAS may be told to take on this processor; "": those that it takes by itself."""
    try:
        flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M).group(1).split())
    except (OSError, AttributeError):
        flags = set()
    return ["", *(name for name, needed in (("Haswell", "avx2"), ("SkylakeX", "avx512f")) if needed in flags)]


def time_ours(name, program, threads, steps, probes):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        model, data, dtype, _ = SPEED[name]
        subprocess.run([program, "bench", "step", "--device", "cpu", "--model", model, "--data", data, "--dtype", dtype, "--batch", "128",
                        "--optimizer", "sgd", "--probes", probes, "--repeat", str(steps), "--json", out], check=True,
                       stdout=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
        return json.loads(out.read_text())


def time_theirs(name, threads, steps, kernels):
    result = subprocess.run([sys.executable, __file__, "--peer", name, "--threads", str(threads), "--steps", str(steps)], check=True,
                            stdout=subprocess.PIPE, env=peer_environment(threads, kernels))
    return json.loads(result.stdout)


def compare_speed(name, arguments):
    steps = arguments.steps if name == "mlp" else max(3, arguments.steps // 10)
    tried = {k: time_theirs(name, arguments.threads, min(steps, 10), k)["median_ms"] for k in openblas_kernels()}
    kernels = min(tried, key=tried.get)
    rounds = []
    for _ in range(arguments.rounds):
        ours = time_ours(name, arguments.program, arguments.threads, steps, "none")["median_ms"]
        probed = time_ours(name, arguments.program, arguments.threads, steps, "all")["median_ms"]
        theirs = time_theirs(name, arguments.threads, steps, kernels)["median_ms"]
        rounds.append({"gradflow_ms": ours, "gradflow_probes_ms": probed, "torch_ms": theirs})
    median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    ratios = sorted(r["torch_ms"] / r["gradflow_ms"] for r in rounds)
    overhead = statistics.median(r["gradflow_probes_ms"] / r["gradflow_ms"] for r in rounds)
    print(f"one training step, {SPEED[name][0]} in {SPEED[name][2]}, batch 128, {arguments.threads} threads, {arguments.rounds} rounds:\n"
          f"  gradflow {median['gradflow_ms']:.2f} ms, with all scalar probes {median['gradflow_probes_ms']:.2f} ms ({overhead:.3f}x)\n"
          f"  PyTorch  {median['torch_ms']:.2f} ms with OpenBLAS' {kernels or 'own choice of'} kernels ("
          + ", ".join(f"{k or 'own choice'} {ms:.1f} ms" for k, ms in tried.items()) + " when tried)\n"
          f"  gradflow is {statistics.median(ratios):.2f}x as fast (from {ratios[0]:.2f}x to {ratios[-1]:.2f}x)", flush=True)
    return {"model": SPEED[name][0], "dtype": SPEED[name][2], "rounds": rounds, "openblas_kernels": kernels, "probe_overhead": overhead,
            "ratio": {"median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "build" / "gradflow")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="timed steps of the mlp in a round; a tenth of it of the others")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", action="append", help="compare gradients of this model instead of the built-in list")
    parser.add_argument("--data", help="for the gradients; the default fits each model")
    parser.add_argument("--only", choices=sorted(SPEED), action="append", help="time this step alone")
    parser.add_argument("--device", default="cpu", help="for gradflow's gradients: cpu, or cuda, which compares networks in f32 and bf16 alone")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--no-gradients", action="store_true")
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments.peer, arguments.threads, arguments.steps)
    try:
        import torch
    except ImportError:
        sys.exit("compare_torch.py: PyTorch is not installed; on Debian: apt-get install python3-torch libopenblas0-openmp, "
                 "and run with /usr/bin/python3")
    if not Path(arguments.program).exists():
        sys.exit(f"compare_torch.py: {arguments.program} is not there; run `make build` first")

    results = {"torch": torch.__version__, "threads": arguments.threads, "gradients": []}
    failed = False
    print(f"same weights, same batch (PyTorch {torch.__version__}):")
    checks = [(model, *check_inputs(model, arguments.device)) for model in arguments.model or CHECK_MODELS]
    if not arguments.model:
        checks += [(model, *check_inputs(model)[:2], "bf16") for model in BF16_MODELS]
    if arguments.device != "cpu":  # which has no f64
        checks = [c for c in checks if c[3] != "f64"]
    elif not arguments.model:
        checks.append(None)
    for wanted in [] if arguments.no_gradients else checks:
        if wanted is None:
            r = check_round_trip(arguments.program)
        else:
            model, data, batch, dtype = wanted
            r = check(arguments.program, arguments.device, model, arguments.data or data, batch, dtype)
        model, dtype = r["model"], r["dtype"]
        results["gradients"].append(r)
        limit = LIMIT[dtype] if dtype != "f32" or arguments.device == "cpu" else 1e-3
        bad = not (r["gradient_difference"] <= limit and r["loss_difference"] <= limit)
        failed |= bad
        print(f"  {model}, {dtype}\n    loss differs by {r['loss_difference']:.1e}, gradients by at most {r['gradient_difference']:.1e} "
              f"({r['worst_tensor']}, of {r['tensors']} tensors){'  TOO MUCH' if bad else ''}", flush=True)
    if not arguments.no_speed:
        results["speed"] = {name: compare_speed(name, arguments) for name in arguments.only or SPEED}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
