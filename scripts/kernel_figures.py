"""The table of kernels in docs/KERNELS.md against what the compiler made of them (see check_ptx.py).

Each row names kernels in its second column, as patterns:
  {a,b}   one of these          <op>   an activation, by the names of bias_<op>_forward_f32
  [x]     with or without x     *      f32 or bf16
Every kernel belongs to exactly one row. The last three columns (registers of the f32 and the bf16 kernels, bytes of
shared memory, as the smallest and the largest) are written by refresh() and held to the compiler by compare().
"""
import re

COLUMNS = ["registers f32", "bf16", "shared"]
WHOSE = re.compile(r"\(nvcc ([\d.]+), sm_(\d+)\)")  # the compiler and architecture that the figures are of


class Row:
    def __init__(self, cells, number, operations):
        self.cells, self.number = cells, number
        self.patterns = [re.compile(expression(text, operations)) for text in re.findall(r"`([^`]+)`", cells[1])]
        self.kernels = []

    def figures(self):
        registers = [span(k.registers for k in self.kernels if k.name.endswith(s)) for s in ("_f32", "_bf16")]
        return registers + [span(k.shared for k in self.kernels)]


def span(values):
    values = sorted(set(values))
    if not values:
        return "–"
    return f"{values[0]} to {values[-1]}" if len(values) > 1 else str(values[0])


def expression(pattern, operations):
    text = re.sub(r"\[(\w+)\]", r"(?:\1)?", pattern)
    text = re.sub(r"\{([\w,]+)\}", lambda m: "(?:" + m.group(1).replace(",", "|") + ")", text)
    return text.replace("<op>", "(?:" + "|".join(operations) + ")").replace("*", "(?:f32|bf16)")


def read_rows(lines, kernels):
    """The rows of the table, each with its kernels."""
    operations = sorted(m.group(1) for m in (re.fullmatch(r"bias_(\w+)_forward_f32", k.name) for k in kernels) if m)
    rows, inside = [], False
    for number, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[-len(COLUMNS):] == COLUMNS:
            inside = True
        elif inside and not line.startswith("|"):
            break
        elif inside and not re.fullmatch(r"[|\-: ]+", line.strip()):
            rows.append(Row(cells, number, operations))
    for kernel in kernels:
        for row in rows:
            if any(p.fullmatch(kernel.name) for p in row.patterns):
                row.kernels.append(kernel)
    return rows


def compare(text, kernels, nvcc, arch):
    """(complaints, notes) about the table in `text`."""
    rows = read_rows(text.split("\n"), kernels)
    complaints, notes = [], []
    if not rows:
        return ["no table ends with the columns " + ", ".join(COLUMNS)], []
    for kernel in kernels:
        count = sum(kernel in row.kernels for row in rows)
        if count != 1:
            complaints.append(f"{kernel.name} belongs to {count} rows of the table, not one")
    for row in rows:
        if not row.kernels:
            complaints.append(f"no kernel is named {row.cells[1]}")
    whose = WHOSE.search(text)
    if not whose or whose.groups() != (nvcc, arch):
        return complaints, [f"the table is {whose.group() if whose else 'nobody'}'s; not compared with (nvcc {nvcc}, "
                            f"sm_{arch})"]
    for row in rows:
        if row.cells[-3:] != row.figures():
            complaints.append(f"line {row.number + 1}, {row.cells[0]}: {' | '.join(row.cells[-3:])}; the compiler says "
                              f"{' | '.join(row.figures())}")
    return complaints, notes


def refresh(text, kernels, nvcc, arch):
    """The text with the compiler's figures."""
    lines = text.split("\n")
    for row in read_rows(lines, kernels):
        lines[row.number] = "| " + " | ".join(row.cells[:-3] + row.figures()) + " |"
    return WHOSE.sub(f"(nvcc {nvcc}, sm_{arch})", "\n".join(lines))
