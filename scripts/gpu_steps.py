"""The training steps of scripts/gpu_check.py: whole steps of gradflow beside PyTorch eager and torch.compile.

Every measurement is a process of its own with a time limit. Part "steps": gradflow, with and without probes, and PyTorch eager, work by
work, those with targets first; what launches one by one take, last. Part "compile": torch.compile(mode="max-autotune"), which may take
minutes a network, as far as time goes: what did not end in time says so in the record, and nothing else is lost. PyTorch gets the
weights and the batch that gradflow began with. (It keeps what it compiled in its cache: a second call on the same machine gets further.)
"""
import json
import os
import sys
import time

import gpu_summary

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


# The first are those with targets. Compilation goes in the same order, the largest of them last: it may take what time there is.
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


def has_targets(w):
    return any(key not in PROBES for key in w["targets"])


def step_command(program, w, options, file):
    dtype = ["--dtype", "f32", "--tf32"] if w["dtype"] == "tf32" else ["--dtype", w["dtype"]]
    return [program, "bench", "step", "--device", "cuda", "--model", w["model"], "--data", w["data"], "--batch", str(w["batch"]), *dtype,
            "--repeat", str(w["repeat"]), *options, "--json", file]


def last_line(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def measure_ours(check, program, w, options, file, seconds, env):
    """The record without its long lists but what libraries say of convolutions, or the reason why there is none."""
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
    short = {key: value for key, value in record.items() if key not in ("launches", "layers", "samples_ms")}
    # How the library runs each convolution, and its time: what explains a slow one afterwards.
    told = [{key: launch[key] for key in ("name", "ms", "floor_ms", "description")} for launch in record.get("launches", []) if "description" in launch]
    return {**short, "convolutions": told} if told else short


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
    return {"reason": f"exit {status}: {last_line(output)}", "exit": status}


def tensors_of(folder, number):
    return os.path.join(folder, f"step-{number}.safetensors")


def rows_of(check, works):
    return check.summary.setdefault("training_steps", {"rows": [{**w, "ours": {}} for w in works], "torch_reason": ""})


def ours(check, program, w, name, row, folder, number, seconds, env):
    """Measures one of OURS into `row`; returns a fault or ""."""
    options = OURS[name] + (["--save-tensors", tensors_of(folder, number)] if name == "graph" else [])
    if seconds < 3:
        return f"{w['name']} ({name}): no time was left"
    row["ours"][name] = record = measure_ours(check, program, w, options, os.path.join(folder, f"step-{number}-{name}.json"), seconds, env)
    return f"{w['name']} ({name}): {record['reason']}" if "reason" in record else ""


def run(check, program, env, torch_env, folder, works=None):
    """gradflow and PyTorch eager."""
    works = WORKS if works is None else works
    started, limit = time.monotonic(), check.left()
    result = rows_of(check, works)
    rows, faults, notes = result["rows"], [], []
    order = sorted(range(len(works)), key=lambda i: not has_targets(works[i]))
    for place, i in enumerate(order):
        w, row = works[i], rows[i]
        share = max(40.0, 0.9 * check.left() / (len(works) - place))  # more than any should take: what hangs must not take all
        for name in ("graph", "probes"):
            faults.append(ours(check, program, w, name, row, folder, i, min(share, check.left()), env))
        if not result["torch_reason"] and check.left() >= 3:
            row["eager"] = measure_torch(check, w, False, min(max(share, 45), check.left()), torch_env, tensors_of(folder, i))
            if row["eager"].get("exit") == 3:  # no PyTorch or no device for it: asking again is in vain
                result["torch_reason"] = row["eager"]["reason"]
        if row["ours"] or "eager" in row:
            check.say(gpu_summary.training_line(row))
        check.save()
    for i in order:
        faults.append(ours(check, program, works[i], "launches", rows[i], folder, i, min(45, check.left()), env))
    notes = [f"eager, {row['name']}: {row['eager']['reason']}" for row in rows if "reason" in row.get("eager", {}) and not result["torch_reason"]]
    if result["torch_reason"]:
        notes.append("without PyTorch: " + result["torch_reason"])
    measured = sum("median_ms" in record for row in rows for record in row["ours"].values())
    faults = [fault for fault in faults if fault]
    check.record("training steps", "failed" if faults or not rows else "passed", started, round(limit),
                 "; ".join([f"{measured} of {len(OURS) * len(rows)} measured", *faults, *notes])[:600])


def run_compile(check, program, env, torch_env, folder, works=None):
    """PyTorch by torch.compile; gradflow too where it has not been measured."""
    works = WORKS if works is None else works
    started, limit = time.monotonic(), check.left()
    result = rows_of(check, works)
    rows, notes = result["rows"], []
    # Those with targets first, and of them the largest last.
    order = sorted(range(len(works)), key=lambda i: (not has_targets(works[i]), has_targets(works[i]) and "memory_ratio" in works[i]["targets"]))
    wanted = sum(has_targets(w) for w in works)
    for place, i in enumerate(order):
        w, row = works[i], rows[i]
        if result["torch_reason"]:
            break
        if "graph" not in row["ours"]:
            notes.append(ours(check, program, w, "graph", row, folder, i, min(30, check.left()), env))
        # Half of what is left, while more with targets follow; the rest takes what it finds.
        seconds = check.left() / (2 if place + 1 < wanted else 1)
        row["compile"] = {"reason": "no time was left"} if seconds < 20 else measure_torch(check, w, True, seconds, torch_env, tensors_of(folder, i))
        if row["compile"].get("exit") == 3:
            result["torch_reason"] = row["compile"]["reason"]
        elif seconds >= 20:
            check.say(gpu_summary.training_line(row))
        check.save()
    if result["torch_reason"]:
        check.skip("torch.compile", result["torch_reason"])
        return
    done = [row for row in rows if "median_ms" in row.get("compile", {})]
    notes += [f"{row['name']}: {row['compile']['reason']}" for row in rows if "reason" in row.get("compile", {})]
    failed = any("reason" in row.get("compile", {}) and "exit" in row["compile"] for row in rows)
    check.record("torch.compile", "passed" if len(done) == len(rows) else "failed" if failed else "timeout", started, round(limit),
                 "; ".join([f"{len(done)} of {len(rows)} networks", *(note for note in notes if note)])[:600])
