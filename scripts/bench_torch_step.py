#!/usr/bin/env python3
"""PyTorch's time and memory for one training step, beside `gradflow bench step`; prints one line of JSON.

    scripts/bench_torch_step.py resnet-20 --batch 128 --dtype bf16                 eager
    scripts/bench_torch_step.py imagenet-50 --batch 256 --dtype bf16 --compile     torch.compile(mode="max-autotune")

With --tensors, weights and batch are those that `gradflow bench step --save-tensors` wrote: both programs begin alike, and
first_loss, before any update, is the same up to rounding. Without it PyTorch draws its own. A step is forward, cross-entropy, backward, SGD with momentum and weight decay (none on biases and norms), on one
batch in memory, images channels-last. bf16 is autocast; f32 is f32 in convolutions too, where PyTorch's default would be TF32. What makes PyTorch faster is
on: cuDNN's search for algorithms, the fused optimizer. A sample is as many steps as last 20 ms, nothing read back in between, by
device events, as gradflow's is (without a GPU by the host's clock).

Memory: peak_bytes is the largest sum of its tensors and workspaces at any time (max_memory_allocated), beside gradflow's total_bytes
(cuBLAS' workspace, 32 MiB on Hopper, is in PyTorch's figure and not in gradflow's); peak_reserved_bytes
what its pool held (max_memory_reserved); taken_bytes what the device gave away from before the model was made until the last step (mem_get_info): the pool,
what libraries took for themselves, code. Beside gradflow's taken_bytes; both are counted from after cuBLAS was opened.
"""
import argparse
import json
import math
import statistics
import sys
import time
import traceback

import torch_models


def sgd(torch, parameters):
    groups = torch_models.decay_groups(parameters, 5e-4)
    try:
        return torch.optim.SGD(groups, lr=1e-4, momentum=0.9, fused=True)
    except (RuntimeError, TypeError):  # before 2.3
        return torch.optim.SGD(groups, lr=1e-4, momentum=0.9, foreach=True)


def measure(torch, o):
    torch.manual_seed(0)
    cuda = o.device == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = o.dtype == "tf32"
    torch.backends.cudnn.benchmark = True
    free = None
    if cuda:
        torch.ones(8, 8, device=o.device) @ torch.ones(8, 8, device=o.device)  # opens cuBLAS, as gradflow does with the device
        torch.cuda.synchronize()
        free = torch.cuda.mem_get_info()[0]
    model, x, classes = torch_models.training_peer(torch, o.work, o.batch, o.device)
    labels = torch.randint(0, classes, (o.batch,), device=o.device)
    if o.tensors:
        given = torch_models.read_tensors(torch, o.tensors)
        torch_models.take_weights(torch, model, given)
        batch = torch_models.channels_first(given["x"]).float()
        if batch.shape != x.shape:
            raise ValueError(f"a batch of {list(batch.shape)} where {list(x.shape)} was asked for")
        x, labels = batch.to(o.device), given["labels"].long().to(o.device)
    device, bf16 = o.device, o.dtype == "bf16"
    if bf16:  # as gradflow has it in memory: autocast need not convert it in every step
        x = x.bfloat16()
    optimizer = sgd(torch, model.parameters())

    def loss_of(x, labels):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return torch.nn.functional.cross_entropy(model(x), labels)

    loss = torch.compile(loss_of, mode="max-autotune") if o.compile else loss_of

    # What compiled code left in its CUDA graphs' memory may be overwritten from here on.
    begin = getattr(getattr(torch, "compiler", None), "cudagraph_mark_step_begin", None) if o.compile and cuda else None
    last = None
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else None

    def run(steps):
        nonlocal last
        if cuda:
            torch.cuda.synchronize()
            events[0].record()
        start = time.perf_counter()
        for _ in range(steps):
            if begin:
                begin()
            optimizer.zero_grad(set_to_none=True)
            last = loss(x, labels)
            last.backward()
            optimizer.step()
        if cuda:
            events[1].record()
            torch.cuda.synchronize()
            return 1e-3 * events[0].elapsed_time(events[1]) / steps
        return (time.perf_counter() - start) / steps

    start = time.perf_counter()
    run(1)
    first = time.perf_counter() - start
    first_loss = last.item()
    best = min(run(1) for _ in range(5))
    steps = max(1, math.ceil(0.02 / best))
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    end = time.perf_counter() + o.seconds
    samples = [run(steps)]
    while len(samples) < o.repeat and time.perf_counter() < end:
        samples.append(run(steps))
    return {"median_ms": 1e3 * statistics.median(samples), "min_ms": 1e3 * min(samples), "samples": len(samples), "steps_per_sample": steps,
            "clock": "device events" if cuda else "the steady clock", "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            "peak_reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
            "taken_bytes": free - torch.cuda.mem_get_info()[0] if cuda else None, "first_step_seconds": first,
            "first_loss": first_loss, "same_tensors": bool(o.tensors),
            "parameters": sum(p.numel() for p in model.parameters()), "version": torch.__version__}


def work(text):
    kind, _, depth = text.partition("-")
    if not depth.isdigit() or not (kind == "mlp" and int(depth) > 1 or kind == "resnet" and int(depth) % 6 == 2 and int(depth) > 2
                                   or kind == "imagenet" and int(depth) in torch_models.BLOCKS):
        raise argparse.ArgumentTypeError(f"{text!r} is none of mlp-DEPTH, resnet-DEPTH (6n+2) and imagenet-18, 34, 50, 101, 152")
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=work, help="mlp-DEPTH, resnet-DEPTH or imagenet-DEPTH")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    parser.add_argument("--tensors", metavar="FILE", help="weights and batch, of gradflow bench step --save-tensors")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeat", type=int, default=50, help="samples at most")
    parser.add_argument("--seconds", type=float, default=5, help="no new sample after so long")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    o = parser.parse_args()
    try:
        import torch
        reason = "" if o.device == "cpu" or torch.cuda.is_available() else "PyTorch sees no CUDA device"
    except ImportError as error:
        torch, reason = None, f"no PyTorch ({error})"
    if not reason and o.compile and not hasattr(torch, "compile"):
        reason = f"PyTorch {torch.__version__} has no torch.compile"
    if reason:
        print(json.dumps({"reason": reason}))
        return 3
    try:
        print(json.dumps(measure(torch, o)))
    except Exception as error:  # of many kinds, and their last line rarely says which
        traceback.print_exc()
        print(json.dumps({"reason": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
