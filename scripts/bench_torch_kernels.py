#!/usr/bin/env python3
"""PyTorch's time for the work of one of gradflow's kernels, eager and through torch.compile.

    scripts/bench_torch_kernels.py relu_forward_f32 1048576      one answer as JSON
    scripts/bench_torch_kernels.py --serve                       a question a line: {"name", "dtype", "size", "rows", "columns", "numbers",
                                                                 "compile" (too) or "only_compile"}

Measured as `gradflow bench kernels` measures: CUDA events around runs of about a millisecond, one launch queued before
them, over so many copies of the tensors that three times the L2 cache passes in between; medians of 20. The
same shapes and types, inputs in memory, results as PyTorch likes to make them. "numbers" is a file of `gradflow bench kernels
--save-numbers`: tensors then hold those numbers one after another, as gradflow's operands do; without it PyTorch draws standard
normal ones. Labels and variances are drawn here. What has no counterpart in PyTorch gets {}.
"""
import argparse
import json
import math
import re
import statistics
import sys

import torch_models

SAMPLES = 20
SAMPLE_SECONDS = 1e-3


def pointwise_forward(torch, op):
    functional = torch.nn.functional
    return {"linear": lambda x: x.clone(), "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
            "leaky_relu": functional.leaky_relu, "gelu": functional.gelu, "silu": functional.silu, "softplus": functional.softplus}.get(op)


def pointwise_backward(torch, op):
    aten = torch.ops.aten
    return {"linear": lambda saved, dy: dy.clone(), "relu": lambda y, dy: aten.threshold_backward(dy, y, 0),
            "tanh": lambda y, dy: aten.tanh_backward(dy, y), "sigmoid": lambda y, dy: aten.sigmoid_backward(dy, y),
            "leaky_relu": lambda y, dy: aten.leaky_relu_backward(dy, y, 0.01, True), "gelu": lambda x, dy: aten.gelu_backward(dy, x),
            "silu": lambda x, dy: aten.silu_backward(dy, x), "softplus": lambda x, dy: aten.softplus_backward(dy, x, 1, 20)}.get(op)


class Numbers:
    """Tensors filled from one block of numbers, again and again, each beginning at the next multiple of 256 bytes behind the last."""

    def __init__(self, torch, path):
        self.torch, self.next = torch, 0
        self.block = torch_models.read_tensors(torch, path)["numbers"].cuda() if path else None

    def take(self, shape, dtype):
        torch = self.torch
        if self.block is None:
            return torch.randn(*shape, device="cuda", dtype=dtype)
        block, count = self.block, math.prod(shape)
        if dtype == torch.bfloat16:  # cut off, not rounded, as gradflow has them
            block = (block.view(torch.int32) & -65536).view(torch.float32)
        block = block.to(dtype)
        size, start = block.element_size(), self.next // block.element_size() % len(block)
        self.next += (count * size + 255) // 256 * 256
        return block.repeat((start + count) // len(block) + 1)[start:start + count].clone().view(*shape)


def work_of(torch, question):
    """(function of one set of tensors, list of shapes or makers) for a kernel's name, or None."""
    name, dtype = question["name"], getattr(torch, {"f32": "float32", "bf16": "bfloat16"}[question["dtype"]])
    size, rows, columns = question["size"], question.get("rows") or 0, question.get("columns") or 0
    kernel, _, variant = name.partition("/")
    stem = re.sub(r"_(f32|bf16)$", "", kernel)

    source = Numbers(torch, question.get("numbers"))

    def numbers(*shape, kind=dtype):
        return lambda: source.take(shape, kind)

    match = re.fullmatch(r"(\w+)_(forward|backward)", stem)
    if match and pointwise_forward(torch, match[1]):
        if match[2] == "forward":
            return pointwise_forward(torch, match[1]), [numbers(size)]
        back = pointwise_backward(torch, match[1])
        if variant == "accumulate":
            return lambda saved, dy, dx: dx.add_(back(saved, dy)), [numbers(size)] * 3
        return back, [numbers(size)] * 2
    fused = re.fullmatch(r"(bias|residual)_(\w+)_(forward|backward)", stem)
    if fused and pointwise_forward(torch, fused[2]):
        return fused_work(torch, fused[1], fused[2], fused[3], numbers, size, rows, columns)
    if stem.startswith("pool_") and columns == 16 * 16 * 64:
        return pooling(torch, stem, rows, numbers)
    if stem in ("random_normal", "random_uniform"):
        return (lambda y: y.normal_() if stem == "random_normal" else y.uniform_()), [numbers(size)]
    if stem == "cast_to":
        other = torch.bfloat16 if question["dtype"] == "f32" else torch.float32
        return lambda x: x.to(dtype), [numbers(size, kind=other)]
    if stem == "residual_forward":
        return lambda skip, branch: torch.add(skip, branch, alpha=0.5), [numbers(size)] * 2
    if stem == "residual_backward":
        if variant == "accumulate":
            return lambda dy, dskip: (dskip.add_(dy), dy * 0.5), [numbers(size)] * 2
        return lambda dy: (dy.clone(), dy * 0.5), [numbers(size)]
    if stem == "memory_copy":
        return lambda a, y: y.copy_(a), [numbers(size)] * 2
    if stem == "memory_add":
        return lambda a, b, y: torch.add(a, b, out=y), [numbers(size)] * 3
    if stem == "fill":
        return lambda y: y.fill_(0.5), [numbers(size)]
    if stem == "column_sum":
        return lambda x: x.sum(0, dtype=torch.float32), [numbers(rows, columns)]
    if stem == "softmax_cross_entropy":
        def loss_and_gradient(x, labels):
            x = x.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(x, labels)
            return torch.autograd.grad(loss, x)[0]
        return loss_and_gradient, [numbers(rows, columns), lambda: torch.randint(columns, (rows,), device="cuda")]
    if stem in ("batch_norm_forward", "batch_norm_apply"):
        training = stem == "batch_norm_forward"
        vector = numbers(columns, kind=torch.float32)
        return (lambda x, w, b, mean, var: torch.nn.functional.batch_norm(x, mean, var, w, b, training=training),
                [numbers(rows, columns), vector, vector, vector, lambda: torch.rand(columns, device="cuda") + 0.5])
    if stem == "batch_norm_backward":
        return (lambda x, dy, w, mean, inv: torch.ops.aten.native_batch_norm_backward(dy, x, w, None, None, mean, inv, True, 1e-5,
                                                                                     [True, True, True]),
                [numbers(rows, columns), numbers(rows, columns), *[numbers(columns, kind=torch.float32)] * 2,
                 lambda: torch.rand(columns, device="cuda") + 0.5])
    update = re.fullmatch(r"(sgd|nesterov|adam|adamw)_update", stem)
    if update and variant in ("", "momentum=0"):
        return update_of(torch, update[1], variant, numbers(size, kind=torch.float32))
    return None


def fused_work(torch, kind, op, direction, numbers, size, rows, columns):
    """Two operations that gradflow does in one pass: bias and activation, residual addition and activation."""
    act, back = pointwise_forward(torch, op), pointwise_backward(torch, op)
    if kind == "bias":
        bias = numbers(columns, kind=torch.float32)
        if direction == "forward":
            return lambda x, b: act(x + b.to(x.dtype)), [numbers(rows, columns), bias]

        def gradients(saved, dy):
            dx = back(saved, dy)
            return dx, dx.sum(0, dtype=torch.float32)
        return gradients, [numbers(rows, columns)] * 2
    if direction == "forward":
        return lambda skip, branch: act(torch.add(skip, branch, alpha=0.5)), [numbers(size)] * 2

    def split(y, dy):
        g = back(y, dy)
        return g, g * 0.5
    return split, [numbers(size)] * 2


def pooling(torch, stem, batch, numbers):
    """Windows of 3 by 3, two apart, over images of 16 by 16 with 64 channels, channels last."""
    window, functional, aten = ([3, 3], [2, 2], [1, 1]), torch.nn.functional, torch.ops.aten

    def images(height):
        return lambda: numbers(batch, height, height, 64)().permute(0, 3, 1, 2)

    if stem == "pool_max_all":
        return lambda x: functional.max_pool2d(x, *window, return_indices=True), [images(16)]
    if stem == "pool_average_all":
        return lambda x: functional.avg_pool2d(x, *window), [images(16)]
    if stem == "pool_max_gradient":
        places = functional.max_pool2d(images(16)(), *window, return_indices=True)[1]
        return lambda x, dy: aten.max_pool2d_with_indices_backward(dy, x, *window, [1, 1], False, places), [images(16), images(8)]
    if stem == "pool_average_gradient":
        return lambda x, dy: aten.avg_pool2d_backward(dy, x, *window, False, True, None), [images(16), images(8)]
    return None


def update_of(torch, kind, variant, numbers):
    """One step of PyTorch's own fused optimizer; its state belongs to it."""
    def make():
        w = numbers().requires_grad_()
        w.grad = numbers()
        if kind in ("sgd", "nesterov"):
            momentum = 0 if variant else 0.9
            optimizer = torch.optim.SGD([w], lr=1e-6, momentum=momentum, nesterov=kind == "nesterov", weight_decay=1e-4, fused=True)
        else:
            optimizer = getattr(torch.optim, {"adam": "Adam", "adamw": "AdamW"}[kind])([w], lr=1e-6, weight_decay=1e-4, fused=True)
        optimizer.step()
        return optimizer
    return lambda optimizer: optimizer.step(), [make]


def bytes_of(torch, thing):
    if isinstance(thing, torch.Tensor):
        return thing.numel() * thing.element_size()
    held = [p for group in thing.param_groups for p in group["params"]]
    return sum(3 * bytes_of(torch, p) for p in held)


def measure(torch, function, sets):
    """Median seconds of a call, the sets in turn."""
    turn = 0

    def run(times):
        nonlocal turn
        for _ in range(times):
            function(*sets[turn])
            turn = (turn + 1) % len(sets)

    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def sample(times):
        run(1)  # the host gets ahead of the device
        first.record()
        run(times)
        last.record()
        last.synchronize()
        return 1e-3 * first.elapsed_time(last) / times

    run(min(len(sets), 64))
    torch.cuda.synchronize()
    times, seconds = 1, sample(1)
    for _ in range(4):
        times = max(1, min(2000, 16 * times, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9))))
        seconds = sample(times)
    return statistics.median(sample(times) for _ in range(SAMPLES))


def answer(torch, question):
    work = work_of(torch, question)
    if work is None:
        return {}
    function, makers = work
    torch.manual_seed(1)
    first = [make() for make in makers]
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    copies = max(2, min(4096, math.ceil(3 * cache / max(1, sum(bytes_of(torch, t) for t in first)))))
    sets = [first] + [[make() for make in makers] for _ in range(copies - 1)]
    result, only = {}, question.get("only_compile")
    with torch.no_grad() if "softmax" not in question["name"] else torch.enable_grad():
        if not only:
            result["eager_us"] = 1e6 * measure(torch, function, sets)
        if (question.get("compile") or only) and "_update" not in question["name"]:
            try:
                torch._dynamo.reset()
                result["compile_us"] = 1e6 * measure(torch, torch.compile(function, dynamic=False), sets)
            except Exception as error:  # compilers fail in many ways, and none must end the comparison
                result["compile_reason"] = f"{type(error).__name__}: {error}"[:200]
    return result


def serve(torch):
    print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name(0)}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if not question:
            continue
        try:
            reply = answer(torch, question)
        except Exception as error:
            reply = {"reason": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(reply), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("name", nargs="?")
    parser.add_argument("size", nargs="?", type=int)
    o = parser.parse_args()
    if not o.serve and not (o.name and o.size):
        parser.error("a kernel's name and a size, or --serve")
    try:
        import torch
        reason = "" if torch.cuda.is_available() else "PyTorch sees no CUDA device"
    except ImportError as error:
        torch, reason = None, f"no PyTorch ({error})"
    if reason:
        print(json.dumps({"reason": reason}), flush=True)
        return 0 if o.serve else 3
    if o.serve:
        serve(torch)
        return 0
    columns = 256
    match = re.search(r"classes=(\d+)", o.name)
    columns = int(match[1]) if match else columns
    dtype = "bf16" if "_bf16" in o.name else "f32"
    print(json.dumps(answer(torch, {"name": o.name, "dtype": dtype, "size": o.size, "rows": o.size // columns, "columns": columns, "compile": True})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
