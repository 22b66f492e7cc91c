"""The kernels of scripts/gpu_check.py: every row of `gradflow bench kernels`, with PyTorch's times beside it, on the same numbers.

First every kernel on 2^26 numbers, where the memory's speed shows, and PyTorch eager; then, as far as time goes, torch.compile on the same,
for half of what is left, and smaller sizes.
"""
import json
import os
import selectors
import signal
import statistics
import subprocess
import sys
import time

import gpu_summary

HERE = os.path.dirname(os.path.abspath(__file__))
LARGE, SMALLER = "2^26", "2^20,2^14"
# In turn with PyTorch: a family's kernels, then the same by PyTorch, then the next family.
FAMILIES = ["^(memory|fill)_", "^(linear|relu|leaky_relu)_", "^(tanh|sigmoid)_", "^(gelu|silu|softplus)_",
            "^(residual|column_sum|broadcast|bias|add|scale)", "^(batch_norm|softmax)", "^(sgd|nesterov|adam)",
            "^(?!(memory|fill|linear|relu|leaky_relu|tanh|sigmoid|gelu|silu|softplus|residual|column_sum|broadcast|bias|add|"
            "scale|batch_norm|softmax|sgd|nesterov|adam))"]


class Torch:
    """scripts/bench_torch_kernels.py as a process that answers one question a line, or the reason there is none."""

    def __init__(self, check, env, seconds=90):
        self.check, self.reason = check, ""
        # PyTorch brings libraries of its own; ours must not get in its way.
        self.process = subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "bench_torch_kernels.py"), "--serve"], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=check.log, text=True, start_new_session=True)
        self.info = self.ask({}, seconds)
        if "reason" in self.info or not self.info:
            self.reason = self.info.get("reason", "PyTorch did not answer")

    def ask(self, question, seconds):
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            selector = selectors.DefaultSelector()
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(seconds, 0.1)):
                self.close()
                return {"reason": f"no answer within {seconds:.0f} s"}
            line = self.process.stdout.readline()
            return json.loads(line) if line else {"reason": "it ended"}
        except (OSError, ValueError) as error:
            return {"reason": str(error)}

    def stopped(self):
        try:
            self.process.wait(0.5)
            return True
        except subprocess.TimeoutExpired:
            return False

    def close(self):
        if not self.stopped():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Kernels:
    def __init__(self, check, program, env, torch_env, folder):
        self.check, self.program, self.env, self.torch_env, self.folder = check, program, env, torch_env, folder
        self.end = time.monotonic() + check.left()
        self.numbers = os.path.join(folder, "numbers.safetensors")
        self.torch = Torch(check, torch_env, min(90, max(check.left(), 1)))
        self.faults, self.notes = [], []
        self.result = {"torch": self.torch.info if not self.torch.reason else None, "torch_reason": self.torch.reason, "rows": [], "rejected": [],
                       "skipped": []}
        check.summary["kernels"] = self.result

    def left(self):
        return self.end - time.monotonic()

    def ask(self, row, seconds, **more):
        """PyTorch's times of a row, into it. False when there is no PyTorch to ask any more."""
        question = {"name": row["name"], "dtype": row["dtype"], "size": row["size"], "rows": row.get("rows", 0), "columns": row.get("columns", 0), **more}
        if os.path.exists(self.numbers):
            question["numbers"] = self.numbers
        answer = self.torch.ask(question, seconds)
        row["torch"] = {**row.get("torch", {}), **answer}
        if "reason" in answer and self.torch.stopped():  # hung or crashed: once more, without this kernel
            self.notes.append(f"PyTorch stopped at {row['name']}: {answer['reason']}")
            self.torch.close()
            self.torch = Torch(self.check, self.torch_env, min(60, max(self.left(), 1)))
        return not self.torch.reason

    def family(self, number, family, sizes, share, needed):
        """One family's kernels, then the same by PyTorch."""
        missing = self.faults if needed else self.notes
        file = os.path.join(self.folder, f"kernels-{number}-{sizes}.json")
        command = [self.program, "bench", "kernels", "--device", "cuda", "--only", family, "--size", sizes, "--json", file, "--save-numbers", self.numbers]
        status, output = self.check.wait(self.check.start(command, self.env), min(share, self.left()))
        if status not in (0, 1) or not os.path.exists(file):
            reason = output.strip().splitlines()[-1][:200] if output.strip() else ""
            if "no kernel's name matches" not in reason:
                missing.append(f"{family}, {sizes}: {'out of time' if status is None else f'exit {status}'} {reason}")
            return
        with open(file, encoding="utf-8") as opened:
            ours = json.load(opened)
        self.result.setdefault("context", ours["context"])
        self.result.setdefault("yardsticks", []).append(ours["yardstick"])
        for key in ("rows", "rejected", "skipped"):
            self.result[key] += ours[key]
        for row in ours["rows"] if not self.torch.reason else []:
            if self.left() < 3:
                missing.append("no time was left for PyTorch's " + row["name"])
                break
            if not self.ask(row, min(self.left(), 20)):
                break
        self.check.say(family_line(f"{sizes}, {family if len(family) < 50 else 'all others'}", ours["rows"]))
        self.check.save()

    def families(self, sizes, needed):
        for i, family in enumerate(FAMILIES):
            if self.left() < 5:
                (self.faults if needed else self.notes).append(f"no time was left for {family}, {sizes}")
                continue
            # Twice its share, so that a family that hangs leaves time for the others.
            self.family(i, family, sizes, max(20.0, 2 * self.left() / (len(FAMILIES) - i)), needed)

    def compile(self):
        largest = max((row["size"] for row in self.result["rows"]), default=0)
        rows = [row for row in self.result["rows"] if row["size"] == largest and row.get("torch", {}).get("eager_us")]
        until, done = time.monotonic() + self.left() / 2, 0
        for row in rows:
            if until - time.monotonic() < 3 or not self.ask(row, min(self.left(), 60), only_compile=True):
                break
            done += 1
        if done < len(rows):
            self.notes.append(f"torch.compile of {done} of {len(rows)} kernels")
        self.check.save()


def family_line(name, rows):
    """A family's figures for whoever watches."""
    def span(values, digits):
        return f"{min(values):.{digits}f} to {max(values):.{digits}f}, median {statistics.median(values):.{digits}f}" if values else "none"
    figures = [gpu_summary.row_of(row) for row in rows if not row["launch_bound"]]
    text = f"    {name}: {len(rows)} rows"
    if figures:
        text += f"; of those not launch-bound % of copy {span([100 * f['share'] for f in figures], 0)}; eager / ours "
        text += span([f["eager_ratio"] for f in figures if f["eager_ratio"]], 2)
    return text


def run(check, program, env, torch_env, folder):
    """Rows of gradflow with PyTorch's times beside them, a family at a time."""
    started, limit = time.monotonic(), round(check.left())
    kernels = Kernels(check, program, env, torch_env, folder)
    result = kernels.result
    try:
        kernels.families(LARGE, needed=True)
        if not kernels.torch.reason:
            kernels.compile()
        kernels.families(SMALLER, needed=False)
    finally:
        kernels.torch.close()
    detail = f"{len(result['rows'])} rows, {len(result['rejected'])} above a ceiling"
    if result["torch_reason"]:
        detail += f"; without PyTorch: {result['torch_reason']}"
    result["same_numbers"] = os.path.exists(kernels.numbers)
    rejected = [f"{row['name']}, {row['size']}: {row['reason']}" for row in result["rejected"]]
    bad = bool(kernels.faults or rejected or not result["rows"])
    check.record("kernels", "failed" if bad else "passed", started, limit, "; ".join([detail, *kernels.faults, *rejected[:3], *kernels.notes])[:600])
