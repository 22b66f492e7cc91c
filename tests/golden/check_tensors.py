#!/usr/bin/env python3
"""Recomputes whole networks in NumPy, from the tensors that `gradflow measure --save-tensors` wrote.

Independent of gradflow: the file is read by the code below, forward and backward are written (here, layers.py,
image_network.py) from the formulas of docs and papers, in f64. Compared are every activation, every gradient, the loss, and every statistic of the JSON
report. Usage: check_tensors.py --program build/gradflow [--device cuda]
"""
import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

from image_network import ImageNetwork
from layers import Act, Layers

MLP_DATA = "synthetic:features=20,classes=6,n=256,test=32"
# Sides that differ, are odd at some stage and even at another: 13x10, 7x5, 4x3; and 37x30, 19x15, 10x8, 5x4, 3x2, 2x1.
IMAGE_DATA = "synthetic:height=13,width=10,channels=3,classes=6,n=64,test=32"
LARGER_IMAGE_DATA = "synthetic:height=37,width=30,channels=3,classes=6,n=64,test=32"

# Relative to the largest element of a tensor. Sums have at most some hundred terms and errors grow by a small factor
# a layer, over at most 9 layers; one unit of rounding is 1e-16 in f64 and 6e-8 in f32.
TOLERANCE = {"f64": 1e-12, "f32": 2e-5}
# Of image networks: sums of up to 9 * 512 terms in another order are off by n units of rounding at the worst, 5e-13, and
# batch norm lets gradients, with them errors, grow by 1.2 a layer, 40 times over 20 layers: 2e-11. A wrong
# formula shows far above: variance over N-1 for N by 1e-3, an epsilon in another place by 1e-5. In f32 the same
# reasoning for a typical error, sqrt(n) units of rounding (n up to 9 * 64) through 8 layers: 6e-8 * 24 * 4 = 6e-6, times three.
IMAGE_TOLERANCE = {"f64": 2e-11, "f32": 2e-5}


def read_safetensors(path):
    with open(path, "rb") as file:
        raw = file.read()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8:8 + length])
    data = raw[8 + length:]
    types = {"F64": "<f8", "F32": "<f4", "I32": "<i4"}
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


class Mlp(Layers):
    def __init__(self, spec, tensors):
        options = dict(part.split("=") for part in spec.split(":", 1)[1].split(","))
        super().__init__(tensors, Act(options.get("act", "relu")))
        self.depth = int(options["depth"])
        self.skip = options.get("skip", "off") == "on"
        self.branch = int(options.get("branch", 1))
        self.norm = options.get("norm", "none") == "bn"
        self.bias = options.get("bias", "on") == "on"
        hidden = self.depth - 2
        self.blocks = hidden // self.branch if self.skip else hidden
        scale = options.get("branch_scale", "1")
        self.scale = 1 / math.sqrt(self.blocks) if scale == "1/sqrt(L)" else float(scale)

    def unit(self, block, suffix, x_name):
        if self.norm:
            x_name = self.batch_norm(f"{block}.norm{suffix}", x_name)
        h = self.activation(f"{block}.{self.act.layer}{suffix}", x_name)
        return self.linear(f"{block}.linear{suffix}", h, self.bias)

    def residual(self, block, x_name):
        branch = x_name
        for k in range(1, self.branch + 1):
            branch = self.unit(block, "" if self.branch == 1 else str(k), branch)
        return self.sum(block + ".add", x_name, branch, self.scale)

    def logits(self):
        if self.depth == 1:
            return self.linear("head.linear", "x", self.bias)
        z = self.linear("stem.linear", "x", self.bias)
        digits = max(2, len(str(self.blocks)))
        for block in range(1, self.blocks + 1):
            name = f"block{block:0{digits}}"
            z = self.residual(name, z) if self.skip else self.unit(name, "", z)
        return self.unit("head", "", z)


def statistics(t, layer, outputs):
    """What the JSON report says of a tensor, from the tensor."""
    wide = t.astype(np.float64).ravel()
    tiny = np.finfo(t.dtype).tiny
    nonzero = np.abs(wide[wide != 0])
    exponents = np.clip(np.frexp(nonzero)[1] - 1, -149, 127)
    low = int(exponents.min()) if len(exponents) else None
    result = {"count": wide.size, "norm": np.sqrt((wide ** 2).sum()), "mean": wide.mean(), "std": wide.std(), "max": np.abs(wide).max(),
              "zeros": int((wide == 0).sum()), "denormals": int((nonzero < tiny).sum()), "nonfinite": 0, "saturated": 0,
              "first_exponent": low, "exponents": np.bincount(exponents - low).tolist() if low is not None else []}
    if outputs and layer == "tanh":
        result["saturated"] = int((1 - t * t < t.dtype.type(0.05)).sum())
    if outputs and layer == "sigmoid":
        result["saturated"] = int((t * (1 - t) < t.dtype.type(0.0125)).sum())
    if outputs and layer == "relu":
        result["dead"] = float((~(t > 0).any(tuple(range(t.ndim - 1)))).mean())  # a unit: of images a channel
    return result


class Check:
    def __init__(self, program, device):
        self.program, self.device, self.compared, self.worst = program, device, 0, {"f64": 0.0, "f32": 0.0}
        self.faults = []

    def near(self, what, ours, theirs, tolerance, scale=None):
        if ours.shape != theirs.shape:
            self.faults.append(f"{what}: shape {ours.shape}, expected {theirs.shape}")
            return 0
        scale = np.abs(theirs).max() if scale is None else scale
        error = np.abs(ours.astype(np.float64) - theirs).max() / (scale if scale else 1)
        self.compared += 1
        if not error <= tolerance:
            self.faults.append(f"{what}: differs by {error:.1e} of its largest element, allowed {tolerance:.0e}")
        return error

    def network(self, model, dtype, folder, data=MLP_DATA):
        label = f"{model} in {dtype}"
        file, report = os.path.join(folder, "t.safetensors"), os.path.join(folder, "m.json")
        command = [self.program, "measure", "--device", self.device, "--model", model, "--data", data,
                   "--batch", "17", "--seed", "5", "--dtype", dtype, "--save-tensors", file, "--json", report]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tensors, metadata = read_safetensors(file)
        with open(report) as opened:
            said = json.load(opened)

        mlp = model.startswith("mlp")
        net = (Mlp if mlp else ImageNetwork)(model, tensors)
        loss, accuracy = net.run(tensors["x"].astype(np.float64), tensors["labels"])
        tolerance = (TOLERANCE if mlp else IMAGE_TOLERANCE)[dtype]
        self.near(label + ", loss", np.array([said["loss"]]), np.array([loss]), tolerance)
        if said["accuracy"] != accuracy or float(metadata["loss"]) != said["loss"] or metadata["model"] != model:
            self.faults.append(f"{label}: accuracy {said['accuracy']} (expected {accuracy}) or metadata {metadata}")

        expected = {"x": None, "labels": None}
        worst = 0.0
        for name, value in net.value.items():
            if name == "x":
                continue
            expected["activation/" + name] = value
            expected["grad/activation/" + name] = net.gradient[name]
        for name, gradient in net.parameter_gradient.items():
            expected[name] = None
            expected["grad/" + name] = gradient
        if set(expected) != set(tensors):
            self.faults.append(f"{label}: tensors {sorted(set(expected) ^ set(tensors))} are missing or unexpected")
        for name, value in expected.items():
            if value is None or name not in tensors:
                continue
            # A bias before batch norm has no effect, its gradient is rounding alone: the layer's weights give the scale.
            scale = np.abs(value).max()
            if name.endswith(".bias"):
                scale = max(scale, np.abs(net.parameter_gradient[name[5:-4] + "weight"]).max())
            worst = max(worst, self.near(f"{label}, {name}", tensors[name], value, tolerance, scale))
        self.worst[dtype] = max(self.worst[dtype], worst)
        for group, prefix in (("activations", "activation/"), ("activation_gradients", "grad/activation/"), ("parameters", ""),
                              ("parameter_gradients", "grad/")):
            names = [entry["name"] for entry in said[group]]
            wanted = [n for n in (net.parameter_gradient if "parameter" in group else net.value) if n != "x"]
            if sorted(names) != sorted(wanted):
                self.faults.append(f"{label}: {group} lists {names}")
                continue
            for entry in said[group]:
                self.statistics(f"{label}, {group} {entry['name']}", entry, tensors[prefix + entry["name"]], group == "activations")

    def statistics(self, what, entry, tensor, outputs):
        wanted = statistics(tensor, entry["layer"], outputs)
        if ("dead" in entry) != ("dead" in wanted):
            self.faults.append(f"{what}: 'dead' belongs to the outputs of ReLU")
            return
        for key, value in wanted.items():
            self.compared += 1
            exact = isinstance(value, (int, list)) or value is None
            # Sums of n terms in another order: n units of rounding of the sum of absolute values.
            allowed = 0 if exact else 2e-16 * tensor.size * max(np.abs(tensor).max(), wanted["norm"], 1e-300)
            # f32 numbers may be summed in short f32 runs: kernels/stats.h allows 2^-19 of the sum of magnitudes and of
            # squares. The norm is off by half of that; the variance, in runs of which it is at least half the mean
            # square, by six times that, the deviation by half of those.
            if tensor.dtype == np.float32 and key in ("norm", "mean", "std"):
                of = {"norm": 0.5 * value, "mean": wanted["norm"] / np.sqrt(tensor.size), "std": 3 * value}[key]
                allowed += 2.0 ** -19 * of
            right = entry[key] == value if exact else abs(entry[key] - value) <= allowed
            if not right:
                self.faults.append(f"{what}: {key} is {entry[key]}, expected {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: in f32 alone")
    options = parser.parse_args()
    check = Check(options.program, options.device)
    dtypes = ("f64", "f32") if options.device == "cpu" else ("f32",)
    models = ["mlp:depth=1,width=12", "mlp:depth=2,width=12", "mlp:depth=6,width=12,bias=off", "mlp:depth=6,width=12,act=linear",
              "mlp:depth=8,width=12,act=tanh,skip=on,branch=2,norm=bn,branch_scale=1/sqrt(L)",
              "mlp:depth=8,width=12,skip=on,branch=2,branch_scale=0.3,bias=off,norm=bn"]
    for act in ("relu", "tanh", "sigmoid"):
        for norm in ("none", "bn"):
            for skip in ("off", "on"):
                models.append(f"mlp:depth=7,width=12,act={act},norm={norm},skip={skip},init=torch,gain=2")
    # Image networks with ReLU are compared in f64 alone: among their many elements f32 moves some across zero, and each
    # takes its whole gradient along.
    kinked = [("resnet:depth=8", IMAGE_DATA), ("resnet:depth=14,version=v2,shortcut=B", IMAGE_DATA), ("plain:depth=14", IMAGE_DATA),
              ("resnet:depth=8,norm=none,shortcut=C,branch_scale=0.5", IMAGE_DATA), ("resnet:depth=11,block=bottleneck,version=v2", IMAGE_DATA),
              ("resnet18", LARGER_IMAGE_DATA)]
    smooth = [(f"{model},act=tanh", IMAGE_DATA) for model in ("resnet:depth=8", "resnet:depth=8,version=v2,shortcut=B", "plain:depth=8")]
    runs = [(model, dtype, MLP_DATA) for model in models for dtype in dtypes]
    runs += [(model, dtype, data) for model, data in smooth for dtype in dtypes]
    runs += [(model, "f64", data) for model, data in kinked if "f64" in dtypes]
    with tempfile.TemporaryDirectory() as folder:
        for model, dtype, data in runs:
            check.network(model, dtype, folder, data)
    for fault in check.faults[:40]:
        print("FAULT", fault)
    print(f"{len({model for model, _, _ in runs})} networks, {check.compared} comparisons, {len(check.faults)} faults; largest difference of a tensor: "
          f"{check.worst['f64']:.1e} in f64, {check.worst['f32']:.1e} in f32")
    return 1 if check.faults or check.compared < 2500 * len(dtypes) else 0


if __name__ == "__main__":
    sys.exit(main())
