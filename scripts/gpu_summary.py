"""The record of scripts/gpu_check.py as files: summary.json, summary.md, kernels.csv and kernels.svg.

A figure is printed only where the record holds one; everything else is a dash. Nothing is computed here but ratios.
"""
import html
import json
import os

DASH = "–"


def figure(value, digits=1, scale=1.0):
    return DASH if value is None else f"{scale * value:.{digits}f}"


def ratio(theirs, ours):
    """How many times PyTorch's time is ours; above 1 gradflow is faster."""
    return None if not theirs or not ours else theirs / ours


def row_of(row):
    """The figures of one kernel, None where there is none."""
    torch = row.get("torch") or {}
    ours = row["cold"]["median_us"]
    eager, compiled = torch.get("eager_us"), torch.get("compile_us")
    return {"name": row["name"], "dtype": row["dtype"], "size": row["size"], "us": ours, "gbytes": row["cold"]["gbytes_per_second"],
            "share": row["share"], "warm_us": row["warm"]["median_us"], "launch_bound": row["launch_bound"], "eager_us": eager,
            "compile_us": compiled, "eager_ratio": ratio(eager, ours), "compile_ratio": ratio(compiled, ours)}


def size_text(size):
    return f"2^{size.bit_length() - 1}" if size > 1 and size & (size - 1) == 0 else str(size)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def step_lines(steps):
    return table(["step", "result", "seconds", "limit", ""],
                 [[s["name"], s["status"], figure(s["seconds"]), figure(s["limit_seconds"], 0), s["detail"].replace("|", "\\|").replace("\n", " ")]
                  for s in steps])


def failure_lines(failures, most=20):
    """A line a failing test: its name, and what it said."""
    if not failures:
        return []
    lines = ["", "### Failing tests", ""]
    lines += [f"- `{f['test']}` ({f['program']}): " + f["message"].replace("\n", " ") for f in failures[:most]]
    return lines + ([f"- and {len(failures) - most} more, in summary.json"] if len(failures) > most else [])


def kernel_lines(rows):
    lines = []
    for size in sorted({row["size"] for row in rows}, reverse=True):
        lines += ["", f"### {size_text(size)} elements", ""]
        lines += table(["kernel", "us", "GB/s", "% of copy", "warm us", "eager us", "compile us", "eager ÷ ours", "compile ÷ ours", ""],
                       [[r["name"], figure(r["us"]), figure(r["gbytes"], 0), figure(r["share"], 0, 100), figure(r["warm_us"]), figure(r["eager_us"]),
                         figure(r["compile_us"]), figure(r["eager_ratio"], 2), figure(r["compile_ratio"], 2),
                         "launch-bound" if r["launch_bound"] else ""] for r in map(row_of, rows) if r["size"] == size])
    return lines


def training_row(row):
    """The figures of one network's step, None where there is none."""
    graph, probes, launches = (row["ours"].get(name) or {} for name in ("graph", "probes", "launches"))
    eager, compiled = row.get("eager") or {}, row.get("compile") or {}
    ours, memory = graph.get("median_ms"), (graph.get("memory") or {}).get("total_bytes")
    taken = (graph.get("memory") or {}).get("taken_bytes")
    overhead = probes.get("probe_overhead")
    return {"ms": ours, "images": graph.get("images_per_second"), "floor_ms": graph.get("floor_ms"), "launches_ms": launches.get("median_ms"),
            "probe_ratio": None if overhead is None else 1 + overhead, "eager_ms": eager.get("median_ms"), "compile_ms": compiled.get("median_ms"),
            "eager_ratio": ratio(eager.get("median_ms"), ours), "compile_ratio": ratio(compiled.get("median_ms"), ours),
            "memory": memory, "eager_memory": eager.get("peak_bytes"), "memory_ratio": ratio(memory, eager.get("peak_bytes")),
            "taken": taken, "eager_taken": eager.get("taken_bytes"), "taken_ratio": ratio(taken, eager.get("taken_bytes"))}


TARGETS = {"eager_ratio": "eager ÷ ours", "compile_ratio": "compile ÷ ours", "probe_ratio": "with probes ÷ without",
           "memory_ratio": "our memory ÷ PyTorch's"}


def verdict(bound, limit, value):
    return "not measured" if value is None else "met" if (value >= limit if bound == "at least" else value <= limit) else "missed"


def training_line(row):
    """One network's figures for whoever watches."""
    f = training_row(row)
    reasons = [f"{name}: {record['reason'][:100]}" for name, record in [*row["ours"].items(), *((k, row[k]) for k in ("eager", "compile") if k in row)]
               if "reason" in record]
    return (f"    {row['name']}, batch {row['batch']}: {figure(f['ms'], 3)} ms (floor {figure(f['floor_ms'], 3)}, launch by launch "
            f"{figure(f['launches_ms'], 3)}), probes x {figure(f['probe_ratio'], 3)}; eager {figure(f['eager_ms'], 3)} ms, {figure(f['eager_ratio'], 2)} x; "
            f"compile {figure(f['compile_ms'], 3)} ms, {figure(f['compile_ratio'], 2)} x; memory {figure(f['memory'], 2, 2**-30)} of "
            f"{figure(f['eager_memory'], 2, 2**-30)} GiB, of the device {figure(f['taken'], 2, 2**-30)} of {figure(f['eager_taken'], 2, 2**-30)}" + ("; " + "; ".join(reasons) if reasons else ""))


def targets_of(rows):
    return [(row["name"], key, bound, limit, training_row(row)[key]) for row in rows for key, (bound, limit) in row["targets"].items()]


def verdicts(summary):
    """The targets that were measured, a line each."""
    rows = (summary.get("training_steps") or {}).get("rows") or []
    return [f"    {verdict(bound, limit, value):6} {name}: {TARGETS[key]} {value:.3f}, {bound} {limit:g}"
            for name, key, bound, limit, value in targets_of(rows) if value is not None]


def same_work(rows):
    """Whether PyTorch began with what gradflow began with, and how far the losses before the first update are apart."""
    asked = [row for row in rows if "median_ms" in (row.get("eager") or {})]
    same = [row for row in asked if row["eager"].get("same_tensors")]
    if not asked:
        return []
    text = f"PyTorch began with gradflow's weights and batch in {len(same)} of {len(asked)} networks"
    pairs = [((row["ours"].get("graph") or {}).get("first_loss"), row["eager"].get("first_loss")) for row in same]
    apart = [abs(ours / theirs - 1) for ours, theirs in pairs if ours is not None and theirs]
    text += f"; the losses before any update differ by at most {max(apart):.1e} of them" if apart else ""
    return [text + (", in the others with its own of the same shapes." if len(same) < len(asked) else "."), ""]


def kind_lines(rows, most=6):
    """Where the time of a step goes: the slowest kinds of launches of the networks with targets of their own."""
    cells = []
    for row in rows:
        groups = (row["ours"].get("graph") or {}).get("groups") or []
        for g in sorted(groups, key=lambda g: -g["ms"])[:most] if "eager_ratio" in row["targets"] else []:
            cells.append([row["name"], g["name"], str(g["launches"]), figure(g["ms"], 3), figure(g["floor_ms"], 3), figure(g["gflops_per_second"], 0, 1e-3),
                          figure(g["gbytes_per_second"], 0)])
    head = ["network", "kind", "launches", "ms", "floor", "TFLOP/s", "GB/s"]
    nothing = max(((row["ours"].get("graph") or {}).get("launch_times", {}).get("nothing_ms", 0) for row in rows), default=0)
    text = ("Launches by kind, each between two device events and none waited for; medians of a few passes. "
            + (f"A pair of events with nothing between shows {figure(nothing, 1, 1e3)} us, which every launch's time holds." if nothing else ""))
    return ["", text.strip(), "", *table(head, cells)] if cells else []


def training_lines(rows):
    if not rows:
        return ["Not measured."]
    figures = [(row, training_row(row)) for row in rows]
    lines = ["Medians, in ms; eager and compile (max-autotune, channels-last) are PyTorch. floor: what the matrix product and the triad that were "
             "measured beside it allow. Memory in GiB, PyTorch in eager mode. Tensors: what our plan and optimizer hold, and PyTorch's peak of tensors and "
             "workspaces (max_memory_allocated). Device: what it gave away during the run, with pools and what libraries took for themselves.", "",
             *same_work(rows)]
    lines += table(["network, batch", "ours", "images/s", "floor", "launch by launch", "probes ×", "eager", "compile", "eager ÷ ours",
                    "compile ÷ ours", "tensors", "PyTorch's", "ours ÷ PyTorch's", "device", "PyTorch's", "ours ÷ PyTorch's"],
                   [[f"{row['name']}, {row['batch']}", figure(f["ms"], 3), figure(f["images"], 0), figure(f["floor_ms"], 3), figure(f["launches_ms"], 3),
                     figure(f["probe_ratio"], 3), figure(f["eager_ms"], 3), figure(f["compile_ms"], 3), figure(f["eager_ratio"], 2),
                     figure(f["compile_ratio"], 2), figure(f["memory"], 2, 2**-30), figure(f["eager_memory"], 2, 2**-30), figure(f["memory_ratio"], 2),
                     figure(f["taken"], 2, 2**-30), figure(f["eager_taken"], 2, 2**-30), figure(f["taken_ratio"], 2)]
                    for row, f in figures])
    targets = [[name, TARGETS[key], f"{bound} {limit:g}", figure(value, 3), verdict(bound, limit, value)]
               for name, key, bound, limit, value in targets_of(rows)]
    lines += ["", *table(["network", "ratio", "target", "measured", ""], targets), *kind_lines(rows)]
    for row in rows:
        for name, record in [*row["ours"].items(), *((key, row[key]) for key in ("eager", "compile") if key in row)]:
            if "reason" in record:
                lines += ["", f"{row['name']}, {name}: {record['reason']}"]
    return lines


def markdown(summary):
    smi, after = summary.get("nvidia_smi_before") or {}, summary.get("nvidia_smi_after") or {}
    devices = summary.get("devices") or []
    gpu = devices[1] if len(devices) > 1 else {}
    name = smi.get("name") or gpu.get("model") or "unknown device"
    lines = [f"## {name}, {summary.get('date', 'no date')}", "",
             f"Revision {summary.get('revision', 'unknown')}; {gpu.get('libraries', 'libraries unknown')}; driver "
             f"{smi.get('driver_version', DASH)}; {summary.get('host', DASH)}, {summary.get('cores', DASH)} cores. Clocks (SM, memory) before "
             f"{smi.get('clocks.sm', DASH)}, {smi.get('clocks.mem', DASH)}, after the measurements {after.get('clocks.sm', DASH)}, "
             f"{after.get('clocks.mem', DASH)}, at most {smi.get('clocks.max.sm', DASH)}, {smi.get('clocks.max.mem', DASH)}.", "",
             "    scripts/gpu_check.sh", "", *step_lines(summary.get("steps", [])),
             *failure_lines(summary.get("failures") or [])]
    kernels = summary.get("kernels") or {}
    rows = kernels.get("rows") or []
    lines += ["", "### Kernels", ""]
    if not rows:
        lines.append("Not measured.")
    else:
        copies = [y["reference_gbytes_per_second"] for y in kernels.get("yardsticks", [])]
        lines.append(f"Copy bandwidth, measured beside each family: {figure(min(copies, default=None), 0)} to {figure(max(copies, default=None), 0)} "
                     "GB/s. Cold cache; medians of device events. "
                     + (f"PyTorch {kernels['torch']['version']}, in turn with gradflow, on tensors of the same shapes and types, which "
                        + ("hold the same numbers (labels and variances are its own)." if kernels.get("same_numbers") else "it fills with normal numbers.")
                        if kernels.get("torch")
                        else f"Without PyTorch: {kernels.get('torch_reason') or 'not there'}."))
        lines += kernel_lines(rows)
    for row in kernels.get("rejected") or []:
        lines += ["", f"Refused: {row['name']}, {size_text(row['size'])}: {row['reason']}"]
    lines += ["", "### Training steps", "", *training_lines((summary.get("training_steps") or {}).get("rows") or [])]
    demo = summary.get("demo")
    lines += ["", "### Demo", "", f"{'Finished' if demo['passed'] else 'Did not finish'}, {figure(demo['seconds'])} s." if demo else "Not run.", ""]
    return "\n".join(lines)


def csv(summary):
    names = ["name", "dtype", "size", "us", "gbytes", "share", "warm_us", "eager_us", "compile_us", "eager_ratio", "compile_ratio", "launch_bound"]
    lines = [",".join(names)]
    for row in map(row_of, (summary.get("kernels") or {}).get("rows") or []):
        lines.append(",".join("" if row[n] is None else f"{row[n]:.6g}" if isinstance(row[n], float) else str(row[n]) for n in names))
    return "\n".join(lines) + "\n"


def svg(summary):
    """Bars of the share of the copy bandwidth at the largest size; a tick where PyTorch's eager time would end."""
    rows = [row_of(row) for row in (summary.get("kernels") or {}).get("rows") or []]
    largest = max((row["size"] for row in rows), default=0)
    rows = [row for row in rows if row["size"] == largest]
    height, left, full = 70 + 18 * len(rows), 330, 560
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {height}" width="960" height="{height}" role="img">',
           "<title>Share of the copy bandwidth</title>",
           "<style>text{font:12px sans-serif;fill:#1c2127}.b{fill:#0072b2}.t{stroke:#d55e00;stroke-width:3}.p{fill:#fff}.e{text-anchor:end}</style>",
           f'<rect class="p" width="960" height="{height}"/>',
           f'<text x="20" y="24">Share of the copy bandwidth, {html.escape(size_text(largest))} elements, cold; orange: PyTorch eager</text>']
    for i, row in enumerate(rows):
        y = 44 + 18 * i
        width = full * min(row["share"], 1.1)
        out.append(f'<text class="e" x="{left - 8}" y="{y + 11}">{html.escape(row["name"])}</text>'
                   f'<rect class="b" x="{left}" y="{y}" width="{width:.1f}" height="13"/>'
                   f'<text x="{left + full * 1.1 + 6:.1f}" y="{y + 11}">{100 * row["share"]:.0f}</text>')
        if row["eager_ratio"]:
            x = left + full * min(row["share"] / row["eager_ratio"], 1.1)
            out.append(f'<line class="t" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 13}"/>')
    return "\n".join(out) + "\n</svg>\n"


def write(summary, folder):
    for name, text in (("summary.json", json.dumps(summary, indent=1) + "\n"), ("summary.md", markdown(summary)), ("kernels.csv", csv(summary)),
                       ("kernels.svg", svg(summary))):
        partial = os.path.join(folder, name + ".partial")
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, os.path.join(folder, name))
