"""The training steps of scripts/gpu_check.py: whole steps of gradflow beside PyTorch eager and torch.compile.

Every measurement is a process of its own with a time limit. First all of gradflow and PyTorch eager, work by work; then
torch.compile(mode="max-autotune"), which may take minutes a network, as far as time goes: what did not end in time says so in the
record, and nothing else is lost. PyTorch gets the weights and the batch that gradflow began with. (PyTorch keeps what it compiled in its cache: a second call gets further.)
"""
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = "synthetic:height=32,width=32,channels=3,n=1024,test=128"
LARGE = "synthetic:height=224,width=224,channels=3,n=256,test=1,classes=256"  # labels are bytes
FEATURES = "synthetic:features=256"
PROBES = {"probe_ratio": ("at most", 1.02)}


def work(name, torch_name, model, data, batch, dtype, repeat=50, **targets):
    return {"name": name, "torch": torch_name, "model": model, "data": data, "batch": batch, "dtype": dtype, "repeat": repeat,
            "targets": {**targets, **PROBES}}


def faster(eager, compiled):
    return {"eager_ratio": ("at least", eager), "compile_ratio": ("at least", compiled)}


# The first are those with targets: compilation goes in this order.
MLP, SMALL = "mlp:depth=100,width=256,act=relu,init=he", "resnet:depth={}"
WORKS = [
    work("MLP of 100 layers, f32", "mlp-100", MLP, FEATURES, 128, "f32", **faster(8, 1.5)),
    work("ResNet-20, bf16", "resnet-20", SMALL.format(20), IMAGES, 128, "bf16", **faster(3, 1.3)),
    work("ResNet-50, 224x224, bf16", "imagenet-50", "resnet50", LARGE, 256, "bf16", 20, **faster(1.15, 1.05), memory_ratio=("at most", 0.8)),
    work("ResNet-56, bf16", "resnet-56", SMALL.format(56), IMAGES, 128, "bf16", **faster(3, 1.3)),
    work("MLP of 100 layers, TF32", "mlp-100", MLP, FEATURES, 128, "tf32"),
    work("MLP of 100 layers, bf16", "mlp-100", MLP, FEATURES, 128, "bf16"),
    work("ResNet-20, f32", "resnet-20", SMALL.format(20), IMAGES, 128, "f32"),
    work("ResNet-20, TF32", "resnet-20", SMALL.format(20), IMAGES, 128, "tf32"),
]
# How gradflow runs: as it does by itself; with every probe beside the same without; launch by launch.
OURS = {"graph": [], "probes": ["--probes", "all"], "launches": ["--graph", "off"]}


def step_command(program, w, options, file):
    dtype = ["--dtype", "f32", "--tf32"] if w["dtype"] == "tf32" else ["--dtype", w["dtype"]]
    return [program, "bench", "step", "--device", "cuda", "--model", w["model"], "--data", w["data"], "--batch", str(w["batch"]), *dtype,
            "--repeat", str(w["repeat"]), *options, "--json", file]


def last_line(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def measure_ours(check, program, w, options, file, seconds, env):
    """The record without its long lists, or the reason why there is none."""
    status, output = check.wait(check.start(step_command(program, w, options, file), env), seconds)
    if status is None:
        return {"reason": f"no result within {seconds:.0f} s"}
    try:
        with open(file, encoding="utf-8") as opened:
            record = json.load(opened)
    except (OSError, ValueError):
        return {"reason": f"exit {status}: {last_line(output)}"}
    if status:
        return {"reason": f"exit {status}: {last_line(output)}"}
    return {key: value for key, value in record.items() if key not in ("launches", "layers", "samples_ms")}


def measure_torch(check, w, compiled, seconds, env, tensors):
    """`tensors`: what gradflow began with; where that file is missing PyTorch draws its own, and its record says so."""
    command = [sys.executable, "-B", os.path.join(HERE, "bench_torch_step.py"), w["torch"], "--batch", str(w["batch"]), "--dtype", w["dtype"]]
    command += (["--tensors", tensors] if os.path.exists(tensors) else []) + (["--compile"] if compiled else [])
    status, output = check.wait(check.start(command, env), seconds)
    if status is None:
        return {"reason": f"no result within {seconds:.0f} s"}
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return {**json.loads(line), "exit": status}
            except ValueError:
                break
    return {"reason": f"exit {status}: {last_line(output)}"}


def tensors_of(folder, number):
    return os.path.join(folder, f"step-{number}.safetensors")


def run(check, program, env, torch_env, folder, works=None):
    works = WORKS if works is None else works
    started, limit = time.monotonic(), check.left()
    rows = [{**w, "ours": {}} for w in works]
    check.summary["training_steps"] = result = {"rows": rows, "torch_reason": ""}
    faults, notes = [], []
    for i, w in enumerate(works):
        # A third of what is left stays for torch.compile.
        share = max(10.0, 0.67 * check.left() / (len(works) - i))
        tensors = tensors_of(folder, i)
        for name, options in OURS.items():
            options = options + (["--save-tensors", tensors] if name == "graph" else [])
            seconds = min(max(share, 45), check.left())
            if seconds < 3:
                faults.append(f"{w['name']} ({name}): no time was left")
                continue
            record = measure_ours(check, program, w, options, os.path.join(folder, f"step-{i}-{name}.json"), seconds, env)
            rows[i]["ours"][name] = record
            if "reason" in record:
                faults.append(f"{w['name']} ({name}): {record['reason']}")
        if not result["torch_reason"] and check.left() >= 3:
            rows[i]["eager"] = measure_torch(check, w, False, min(max(share, 45), check.left()), torch_env, tensors)
            if rows[i]["eager"].get("exit") == 3:  # no PyTorch or no device for it: asking again is in vain
                result["torch_reason"] = rows[i]["eager"]["reason"]
    for i, w in enumerate(works):
        if result["torch_reason"]:
            break
        # The first, which have targets, may take more than their share.
        seconds = check.left() if len(works) - i == 1 else check.left() / min(3, len(works) - i)
        rows[i]["compile"] = {"reason": "no time was left"} if seconds < 20 else measure_torch(check, w, True, seconds, torch_env, tensors_of(folder, i))
    for key in ("eager", "compile"):
        notes += [f"{key}, {row['name']}: {row[key]['reason']}" for row in rows if "reason" in row.get(key, {}) and not result["torch_reason"]]
    if result["torch_reason"]:
        notes.append("without PyTorch: " + result["torch_reason"])
    measured = sum("median_ms" in record for row in rows for record in row["ours"].values())
    check.record("training steps", "failed" if faults or not rows else "passed", started, round(limit),
                 "; ".join([f"{measured} of {len(OURS) * len(rows)} measured", *faults, *notes])[:600])
