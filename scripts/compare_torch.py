#!/usr/bin/env python3
"""gradflow beside PyTorch on the CPU: the same training step timed in turn, and the same gradients.

    apt-get install python3-torch libopenblas0-openmp
    scripts/compare_torch.py [--rounds 7] [--threads 2] [--json FILE] [--model SPEC ...]

Speed: one step = forward, cross-entropy, backward, SGD (momentum 0.9, weight decay 1e-4) on one batch in memory.
Each round runs both programs, one after the other, each in a process of its own, so that a machine whose
speed drifts treats both alike; printed are the medians of the rounds and the ratio round by round.
PyTorch gets its better matrix library: with Debian's default OpenBLAS, whose threads fight PyTorch's, it is
several times slower, and a comparison with that would be unfair.

Correctness: gradflow writes its batch, weights, loss and gradients as safetensors; PyTorch computes loss and
gradients from the same weights and batch, and the largest differences are printed, relative to the
largest element of each tensor. The exit code is 1 if one is above 1e-4, which f32 sums in another order reach
nowhere near at these sizes, and a wrong formula exceeds by far.
"""
import argparse
import json
import math
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEED_MODEL = "mlp:depth=50,width=256,act=relu,init=he"
SPEED_DATA = "synthetic:features=256"
CHECK_MODELS = [
    "mlp:depth=6,width=64,act=relu,init=he",
    "mlp:depth=6,width=64,act=tanh,init=xavier,skip=on",
    "mlp:depth=6,width=64,act=sigmoid,init=xavier,norm=bn",
    "mlp:depth=8,width=64,act=relu,init=he,norm=bn,skip=on,branch=2,branch_scale=0.5",
    "mlp:depth=50,width=256,act=relu,init=he",
]
LIMIT = 1e-4


def read_safetensors(path):
    import numpy
    kinds = {"F32": numpy.float32, "F64": numpy.float64, "I32": numpy.int32, "I64": numpy.int64, "U8": numpy.uint8}
    raw = Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            data = numpy.frombuffer(raw[8 + size + first:8 + size + last], dtype=kinds[entry["dtype"]])
            tensors[name] = data.reshape(entry["shape"]).copy()
    return tensors


def parse_spec(spec):
    values = dict(item.split("=", 1) for item in spec.split(":", 1)[1].split(","))
    return {"act": "relu", "skip": "off", "norm": "none", "branch": "1", "branch_scale": "1", **values}


def torch_forward(torch, spec, weights, x):
    """The network that layers/include/gradflow/layers/models.h describes, from its parameter names alone."""
    functional = torch.nn.functional
    options = parse_spec(spec)
    act = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda v: v}[options["act"]]

    def linear(name, v):
        return functional.linear(v, weights[name + ".weight"], weights.get(name + ".bias"))

    def unit(block, suffix, v):
        if options["norm"] == "bn":
            norm = f"{block}.norm{suffix}"
            v = functional.batch_norm(v, None, None, weights[norm + ".scale"], weights[norm + ".shift"], training=True)
        return linear(f"{block}.linear{suffix}", act(v))

    blocks = sorted({name.split(".")[0] for name in weights if name.startswith("block")})
    z = linear("stem.linear", x)
    for block in blocks:
        if options["skip"] == "off":
            z = unit(block, "", z)
        else:
            branch = z
            for k in range(1, int(options["branch"]) + 1):
                branch = unit(block, "" if options["branch"] == "1" else str(k), branch)
            scale = 1 / math.sqrt(len(blocks)) if options["branch_scale"] == "1/sqrt(L)" else float(options["branch_scale"])
            z = z + scale * branch
    return unit("head", "", z)


def check(program, model, data, batch):
    """Largest relative difference of the loss and of any gradient between gradflow and PyTorch."""
    import torch
    with tempfile.TemporaryDirectory() as folder:
        tensors_file, json_file = Path(folder) / "t.safetensors", Path(folder) / "m.json"
        subprocess.run([program, "measure", "--device", "cpu", "--model", model, "--data", data, "--batch", str(batch),
                        "--save-tensors", tensors_file, "--json", json_file], check=True, stdout=subprocess.DEVNULL)
        tensors = {name: torch.from_numpy(value) for name, value in read_safetensors(tensors_file).items()}
        loss_here = json.loads(json_file.read_text())["loss"]
    names = [n for n in tensors if f"grad/{n}" in tensors and "activation/" not in n and n not in ("x", "labels")]
    weights = {n: tensors[n].requires_grad_() for n in names}
    loss = torch.nn.functional.cross_entropy(torch_forward(torch, model, weights, tensors["x"]), tensors["labels"].long())
    loss.backward()
    worst, worst_name = 0.0, ""
    for name, weight in weights.items():
        ours, theirs = tensors["grad/" + name], weight.grad
        scale = theirs.abs().max().item()
        # A bias before batch norm has no effect: its gradient is rounding alone, measured against the weight's.
        if name.endswith(".bias"):
            scale = max(scale, weights[name[:-4] + "weight"].grad.abs().max().item())
        difference = (ours - theirs).abs().max().item() / scale if scale else (ours - theirs).abs().max().item()
        if not difference <= worst:
            worst, worst_name = difference, name
    return {"model": model, "loss_gradflow": loss_here, "loss_torch": loss.item(),
            "loss_difference": abs(loss_here - loss.item()) / abs(loss.item()),
            "gradient_difference": worst, "worst_tensor": worst_name, "tensors": len(names)}


def peer(threads, steps):
    """One timing of the PyTorch step; run in a process of its own. Prints milliseconds a step."""
    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers = []
    for _ in range(49):
        layer = torch.nn.Linear(256, 256)
        torch.nn.init.kaiming_normal_(layer.weight)
        layers += [layer, torch.nn.ReLU(inplace=True)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(256, 10))
    # foreach: one fused pass over all parameters, its faster way here.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=True)
    x, labels = torch.randn(128, 256), torch.randint(0, 10, (128,))

    def step():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    for _ in range(10):
        step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"median_ms": statistics.median(times) * 1e3, "torch": torch.__version__,
                      "parameters": sum(p.numel() for p in model.parameters())}))


def peer_environment(threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    for folder in Path("/usr/lib").glob("*/openblas-openmp"):
        environment["LD_LIBRARY_PATH"] = str(folder)
    return environment


def time_ours(program, threads, steps, probes):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        subprocess.run([program, "bench", "step", "--device", "cpu", "--model", SPEED_MODEL, "--data", SPEED_DATA, "--batch", "128",
                        "--optimizer", "sgd", "--probes", probes, "--repeat", str(steps), "--json", out],
                       check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
        return json.loads(out.read_text())


def time_theirs(threads, steps):
    result = subprocess.run([sys.executable, __file__, "--peer", "--threads", str(threads), "--steps", str(steps)], check=True,
                            stdout=subprocess.PIPE, env=peer_environment(threads))
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "build" / "gradflow")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="timed steps in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", action="append", help="compare gradients of this model instead of the built-in list")
    parser.add_argument("--data", default="synthetic:features=256")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--json", help="write all figures to this file")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        return peer(arguments.threads, arguments.steps)
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
    for model in arguments.model or CHECK_MODELS:
        r = check(arguments.program, model, arguments.data, 128)
        results["gradients"].append(r)
        bad = not (r["gradient_difference"] <= LIMIT and r["loss_difference"] <= LIMIT)
        failed |= bad
        print(f"  {model}\n    loss differs by {r['loss_difference']:.1e}, gradients by at most {r['gradient_difference']:.1e} "
              f"({r['worst_tensor']}, of {r['tensors']} tensors){'  TOO MUCH' if bad else ''}")
    if not arguments.no_speed:
        rounds = []
        for _ in range(arguments.rounds):
            ours = time_ours(arguments.program, arguments.threads, arguments.steps, "none")["median_ms"]
            probed = time_ours(arguments.program, arguments.threads, arguments.steps, "all")["median_ms"]
            theirs = time_theirs(arguments.threads, arguments.steps)["median_ms"]
            rounds.append({"gradflow_ms": ours, "gradflow_probes_ms": probed, "torch_ms": theirs})
        results["rounds"] = rounds
        median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        ratios = sorted(r["torch_ms"] / r["gradflow_ms"] for r in rounds)
        overhead = statistics.median(r["gradflow_probes_ms"] / r["gradflow_ms"] for r in rounds)
        results["ratio"] = {"median": statistics.median(ratios), "min": ratios[0], "max": ratios[-1]}
        results["probe_overhead"] = overhead
        print(f"one training step, {SPEED_MODEL}, batch 128, {arguments.threads} threads, {arguments.rounds} rounds:\n"
              f"  gradflow {median['gradflow_ms']:.2f} ms, with all scalar probes {median['gradflow_probes_ms']:.2f} ms ({overhead:.3f}x)\n"
              f"  PyTorch  {median['torch_ms']:.2f} ms\n"
              f"  gradflow is {statistics.median(ratios):.2f}x as fast (from {ratios[0]:.2f}x to {ratios[-1]:.2f}x)")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
