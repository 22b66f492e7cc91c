#!/usr/bin/env python3
"""Does a deeper plain network train worse, and a deeper residual one better? Trains plain-20, plain-56, ResNet-20 and ResNet-56
of He et al. 2015 with their recipe, scaled to the time at hand, and prints training and test errors.

    scripts/training_study.py                     on a CPU: images of half the size, 1,600 steps of 128
    scripts/training_study.py --full --device cuda --data cifar10:DIR
                                                  64,000 steps at full size, with depth 110 as well

The recipe (--recipe he2015): momentum 0.9, weight decay 1e-4, batches of 128, rate 0.1 divided by ten after half and after three
quarters of the steps, images shifted and mirrored, minus their mean. In the folder --out: one folder a network (see `gradflow train
--help`), and study.json, written anew behind every network ("complete": whether all are in it). Stopped by Ctrl-C or a signal, the
study prints what it has; the same command goes on where it was, another one is refused there.

The training error is the mean over the batches of the last epoch (or all steps, if there are fewer): as seen while training, with
augmentation. The test error is that of the whole test set behind the last step, not the best one.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

FULL_STEPS = 64000
running, stopping = None, False


def stop(signum, _):
    """Ends the study behind the training at hand, which saves a checkpoint. A terminal's Ctrl-C reaches that by itself."""
    global stopping
    stopping = True
    if signum == signal.SIGTERM and running:
        running.send_signal(signum)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/gradflow", metavar="FILE")
    parser.add_argument("--out", default="training-study", metavar="DIR")
    parser.add_argument("--data", metavar="SPEC", help="default: half:fashion-mnist; with --full fashion-mnist")
    parser.add_argument("--device", default="auto", metavar="D")
    parser.add_argument("--steps", type=int, metavar="N", help="default: 1600; with --full 64000")
    parser.add_argument("--depths", metavar="N,N", help="default: 20,56; with --full 20,56,110")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--full", action="store_true", help="the paper's number of steps, at full size")
    parser.add_argument("--table", metavar="FILE", help="print the table of a study.json; trains nothing")
    a = parser.parse_args()
    a.data = a.data or ("fashion-mnist" if a.full else "half:fashion-mnist")
    a.steps = a.steps if a.steps is not None else FULL_STEPS if a.full else 1600
    try:
        a.depths = [int(d) for d in (a.depths or ("20,56,110" if a.full else "20,56")).split(",")]
    except ValueError:
        parser.error(f"--depths {a.depths!r}: expected numbers such as 20,56")
    if a.steps < 4:
        parser.error(f"--steps {a.steps}: at least 4, so that the rate can fall twice")
    return a


def settings(a, depth):
    """What decides a run besides its model, as the log's first line has it."""
    schedule = f"step:at={a.steps // 2}/{a.steps * 3 // 4},factor=0.1"
    if depth >= 110:
        schedule += ",warmup=400,warmup_at=0.1"
    return {"data": a.data, "schedule": schedule, "augmentation": f"standard:crop={2 if a.data.startswith('half:') else 4}", "seed": a.seed}


def train(a, kind, depth):
    """One network, or what is left of it. Returns its folder, and the exit code if it was stopped."""
    folder = os.path.join(a.out, f"{kind}-{depth}")
    wanted = settings(a, depth)
    if os.path.exists(os.path.join(folder, "last.safetensors")):
        with open(os.path.join(folder, "log.jsonl")) as log:
            first = json.loads(log.readline())
        for key, value in wanted.items():
            if first[key] != value:
                print(f"training_study: {folder} holds a run with {key} {first[key]}, not {value}: name another folder with --out", file=sys.stderr)
                sys.exit(2)
        command = [a.program, "train", "--resume", "--out", folder, "--steps", str(a.steps), "--device", a.device]
    else:
        command = [a.program, "train", "--model", f"{kind}:depth={depth}", "--data", a.data, "--recipe", "he2015", "--steps", str(a.steps),
                   "--schedule", wanted["schedule"], "--augment", wanted["augmentation"], "--seed", str(a.seed), "--device", a.device, "--out", folder]
    print("+ " + " ".join(command), flush=True)
    global running
    running = subprocess.Popen(command)
    if stopping:  # meanwhile
        running.send_signal(signal.SIGTERM)
    code, running = running.wait(), None
    if stopping and code < 0:  # before it was ready for signals
        code = 128 - code
    if code in (130, 143):
        return folder, code
    # 1: the loss became NaN or infinite, which is a result; anything else ends the study.
    if code not in (0, 1):
        sys.exit(code)
    return folder, None


def measure(folder, kind, depth):
    steps, held_out, first = [], [], {}
    with open(os.path.join(folder, "log.jsonl")) as log:
        for line in map(json.loads, log):
            if line["event"] == "start":
                first = line
            elif line["event"] == "step":
                steps.append(line)
            elif line["event"] == "held_out":
                held_out.append(line)
    with open(os.path.join(folder, "summary.json")) as file:
        summary = json.load(file)
    tail = steps[-min(len(steps), first["steps_per_epoch"]):]
    mean = lambda key: sum(s[key] for s in tail) / len(tail) if tail else None
    diverged = summary["status"] == "nonfinite"
    accuracy = mean("accuracy")
    return {"network": f"{'ResNet' if kind == 'resnet' else kind}-{depth}", "kind": kind, "depth": depth, "steps": len(steps), "diverged": diverged,
            "training_error": None if diverged or accuracy is None else 1 - accuracy, "training_loss": None if diverged else mean("loss"),
            "test_error": None if diverged or not held_out else 1 - held_out[-1]["accuracy"], "status": summary["status"],
            "batch": first["batch"], "device": first["device_model"], "revision": first["git_revision"],
            **{key: summary[key] for key in ("model", "optimizer", "schedule", "augmentation", "dtype")}}


def say(condition):
    return "yes" if condition else "no"


def print_table(study):
    percent = lambda x: "–" if x is None else f"{100 * x:.2f} %"
    print(f"\n{study['data']}, {study['steps']} steps of 128, seed {study['seed']}, {study['rows'][0]['device']}, revision {study['rows'][0]['revision']}")
    print(f"{'network':<12}{'training error':>16}{'training loss':>16}{'test error':>14}   how it ended")
    for row in study["rows"]:
        loss = "–" if row["training_loss"] is None else f"{row['training_loss']:.4f}"
        print(f"{row['network']:<12}{percent(row['training_error']):>16}{loss:>16}{percent(row['test_error']):>14}   {row['status']}")
    for kind, words in (("plain", "the deeper plain network has the higher training error (He et al. 2015)"),
                        ("resnet", "the deeper residual network has the lower training error")):
        rows = [r for r in study["rows"] if r["kind"] == kind and r["training_error"] is not None]
        for a, b in zip(rows, rows[1:]):
            holds = b["training_error"] > a["training_error"] if kind == "plain" else b["training_error"] < a["training_error"]
            print(f"{words}: {say(holds)}, {a['network']} {percent(a['training_error'])}, {b['network']} {percent(b['training_error'])}")
    if not study.get("complete", True):
        print("Not complete: networks are missing.")
    print("One run a network: differences of the size of the scatter between seeds say nothing.")


def main():
    a = arguments()
    if a.table:
        with open(a.table) as file:
            print_table(json.load(file))
        return
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    start = time.time()
    path = os.path.join(a.out, "study.json")
    study = {"schema": "gradflow-training-study/1", "data": a.data, "steps": a.steps, "seed": a.seed, "seconds": 0, "complete": False, "rows": []}
    networks = [(kind, depth) for kind in ("plain", "resnet") for depth in a.depths]
    for kind, depth in networks:
        folder, stopped = train(a, kind, depth)
        if stopped is not None:
            if study["rows"]:
                print_table(study)
            print(f"stopped in {folder}; the same command goes on there")
            sys.exit(stopped)
        study["rows"].append(measure(folder, kind, depth))
        study["seconds"] = round(time.time() - start, 1)
        study["complete"] = len(study["rows"]) == len(networks)
        with open(path + ".part", "w") as file:
            json.dump(study, file, indent=1)
            file.write("\n")
        os.replace(path + ".part", path)
    print_table(study)
    print(f"{study['seconds']:.0f} s in this call; the numbers are in {path}")


if __name__ == "__main__":
    main()
