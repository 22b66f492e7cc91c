#!/usr/bin/env python3
"""What TensorBoard's own reader finds in the event file of a short run, against the run's log.

    scripts/check_tensorboard.py [--program build/gradflow] [--device auto]

Needs the Python package tensorboard, which Debian has not: tests/scripts/test_event_file.py decodes the file by hand everywhere.
Exit status: 0 TensorBoard reads what was logged, 1 it does not (FAULT, and what), 2 it is not installed.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUN = ["--model", "resnet:depth=8", "--data", "synthetic:n=128,test=32,height=8,width=8,channels=1", "--optimizer", "sgd", "--lr", "0.05",
       "--batch", "32", "--steps", "9", "--probe-every", "4", "--eval-every", "3", "--tensorboard"]


def expected(log):
    """({tag: [(step, value)]} of scalars, {tag: steps} of histograms), from the lines of log.jsonl."""
    scalars, histograms = {}, {}
    for line in log:
        step = line.get("step")
        if line["event"] == "step":
            for tag, key in (("loss/train", "loss"), ("accuracy/train", "accuracy"), ("learning_rate", "learning_rate")):
                scalars.setdefault(tag, []).append((step, line[key]))
        elif line["event"] == "held_out":
            for tag, key in (("loss/held_out", "loss"), ("accuracy/held_out", "accuracy")):
                scalars.setdefault(tag, []).append((step, line[key]))
        elif line["event"] == "layers":
            for name, norm in zip(line["layer"], line["gradient"]):
                scalars.setdefault("gradient_norm/" + name, []).append((step, norm))
                histograms.setdefault("gradient_log2/" + name, []).append(step)
    return scalars, histograms


def faults(log, reader):
    """Lines of what differs; `reader` is an EventAccumulator that has read the run."""
    scalars, histograms = expected(log)
    tags = reader.Tags()
    for tag, values in scalars.items():
        got = [(e.step, e.value) for e in reader.Scalars(tag)] if tag in tags["scalars"] else []
        if [step for step, _ in got] != [step for step, _ in values]:
            yield f"{tag}: steps {[step for step, _ in got]}, logged {[step for step, _ in values]}"
        elif not all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30) for (_, a), (_, b) in zip(got, values)):
            yield f"{tag}: {got}, logged {values}"
    for tag, steps in histograms.items():
        got = reader.Histograms(tag) if tag in tags["histograms"] else []
        if [e.step for e in got] != steps or any(len(e.histogram_value.bucket) != len(e.histogram_value.bucket_limit) for e in got):
            yield f"{tag}: histograms of steps {[e.step for e in got]}, logged {steps}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "gradflow"))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        from tensorboard.backend.event_processing import event_accumulator
    except ImportError:
        sys.stderr.write("check_tensorboard.py: the Python package tensorboard is not installed\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        subprocess.run([arguments.program, "train", "--out", out, "--device", arguments.device, *RUN], check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "log.jsonl"), encoding="utf-8") as file:
            log = [json.loads(line) for line in file]
        everything = {event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0}
        reader = event_accumulator.EventAccumulator(os.path.join(out, "tensorboard"), size_guidance=everything)
        reader.Reload()
        wrong = list(faults(log, reader))
    for line in wrong:
        print("FAULT " + line)
    scalars, histograms = expected(log)
    print(f"TensorBoard reads {len(scalars)} scalars and {len(histograms)} histograms" + (f", {len(wrong)} wrong" if wrong else " as they were logged"))
    return 1 if wrong or not scalars or not histograms else 0


if __name__ == "__main__":
    sys.exit(main())
