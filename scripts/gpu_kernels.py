"""The kernels of scripts/gpu_check.py: every row of `gradflow bench kernels`, with PyTorch's times beside it, on the same numbers."""
import json
import os
import selectors
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# In turn with PyTorch: a family's kernels, then the same by PyTorch, then the next family.
FAMILIES = ["^(memory|fill)_", "^(linear|relu|leaky_relu)_", "^(tanh|sigmoid)_", "^(gelu|silu|softplus)_",
            "^(residual|column_sum|broadcast|bias|add|scale)", "^(batch_norm|softmax)", "^(sgd|nesterov|adam)",
            "^(?!(memory|fill|linear|relu|leaky_relu|tanh|sigmoid|gelu|silu|softplus|residual|column_sum|broadcast|bias|add|"
            "scale|batch_norm|softmax|sgd|nesterov|adam))"]


class Torch:
    """scripts/bench_torch_kernels.py as a process that answers one question a line, or the reason there is none."""

    def __init__(self, check, env, seconds=60):
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


def run(check, program, env, torch_env, folder):
    """Rows of gradflow with PyTorch's times beside them, a family at a time."""
    started, limit = time.monotonic(), round(check.left())
    end = started + check.left()
    torch = Torch(check, torch_env)
    result = {"torch": torch.info if not torch.reason else None, "torch_reason": torch.reason, "rows": [], "rejected": [], "skipped": []}
    faults, numbers = [], os.path.join(folder, "numbers.safetensors")
    for i, family in enumerate(FAMILIES):
        if end - time.monotonic() < 5:
            faults.append("no time was left for " + family)
            continue
        file = os.path.join(folder, f"kernels-{i}.json")
        command = [program, "bench", "kernels", "--device", "cuda", "--only", family, "--json", file, "--save-numbers", numbers]
        # Twice its share, so that a family that hangs leaves time for the others.
        share = max(20.0, 2 * (end - time.monotonic()) / (len(FAMILIES) - i))
        status, output = check.wait(check.start(command, env), min(share, end - time.monotonic()))
        if status not in (0, 1) or not os.path.exists(file):
            reason = output.strip().splitlines()[-1][:200] if output.strip() else ""
            if "no kernel's name matches" not in reason:
                faults.append(f"{family}: {'out of time' if status is None else f'exit {status}'} {reason}")
            continue
        with open(file, encoding="utf-8") as opened:
            ours = json.load(opened)
        result.setdefault("context", ours["context"])
        result.setdefault("yardsticks", []).append(ours["yardstick"])
        for key in ("rows", "rejected", "skipped"):
            result[key] += ours[key]
        if torch.reason:
            continue
        largest = max((row["size"] for row in ours["rows"]), default=0)
        for row in ours["rows"]:
            seconds = end - time.monotonic()
            question = {"name": row["name"], "dtype": row["dtype"], "size": row["size"], "rows": row.get("rows", 0),
                        "columns": row.get("columns", 0), "compile": row["size"] == largest and seconds > 20 * (len(FAMILIES) - i)}
            if os.path.exists(numbers):
                question["numbers"] = numbers
            if seconds < 3:
                faults.append("no time was left for PyTorch's " + row["name"])
                break
            row["torch"] = torch.ask(question, min(seconds, 60 if question["compile"] else 20))
            if "reason" in row["torch"] and torch.stopped():  # hung or crashed: once more, without this kernel
                faults.append(f"PyTorch stopped at {row['name']}: {row['torch']['reason']}")
                torch.close()
                torch = Torch(check, torch_env, min(60, max(end - time.monotonic(), 1)))
                if torch.reason:
                    break
    torch.close()
    detail = f"{len(result['rows'])} rows, {len(result['rejected'])} above a ceiling"
    if result["torch_reason"]:
        detail += f"; without PyTorch: {result['torch_reason']}"
    result["same_numbers"] = os.path.exists(numbers)
    check.summary["kernels"] = result
    bad = bool(faults or result["rejected"] or not result["rows"])
    check.record("kernels", "failed" if bad else "passed", started, limit, "; ".join([detail, *faults])[:600])
