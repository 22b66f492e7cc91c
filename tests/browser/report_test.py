"""Opens the report of the sample study in headless Chromium, as a person would, and checks what it did.

    report_test.py SAMPLE_REPORT [--keep DIR]

SAMPLE_REPORT is the program that writes the report into a folder. In every setting (desktop, narrow, dark, another choice in the
address) there must be no script error, every chart must have been drawn, nothing may be wider than the window, and the
screenshot must not be blank. --keep leaves the screenshots in DIR.
"""

import argparse
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from png import read_png  # noqa: E402

CHARTS = ["accuracy", "exponents", "factor", "gradient", "hero", "matrix", "pair-gradient-plain", "pair-gradient-residual", "pair-loss",
          "pair-rate-plain", "pair-rate-residual", "pair-turn-plain", "pair-turn-residual", "signal", "skip-branch", "training-loss",
          "units", "update-ratio", "weight-gradient", "zeros"]
RELU_BN = "#act=relu&init=he&norm=bn&skip=all&step=5"
EVERYTHING = "#act=all&init=all&norm=all&skip=all&step=0"

OPEN_ALL = """<script>setTimeout(() => {
  for (const details of document.querySelectorAll('details.numbers')) details.open = true;
  setTimeout(() => document.documentElement.setAttribute('data-tables',
    [...document.querySelectorAll('details .table-box table')].filter((table) => table.rows.length > 2).length), 500);
}, 500)</script></body>"""

# What a reader does: a choice, the slider, a cell of the table, a curve of the first picture by keyboard.
USE = """<script>setTimeout(() => {
  const seen = [];
  const note = () => seen.push([location.hash.slice(1), document.getElementById('shown').textContent]);
  document.querySelector('input[name="act"][value="tanh"]').click(); note();
  const slider = document.getElementById('step-slider');
  slider.value = '2'; slider.dispatchEvent(new Event('input')); note();
  [...document.querySelectorAll('.matrix button')].pop().click(); note();
  document.querySelector('#hero .net[data-id="plain-sigmoid-he-none"]').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'})); note();
  document.documentElement.setAttribute('data-seen', JSON.stringify(seen));
}, 500)</script></body>"""
USED = [("act=tanh&init=xavier&norm=none&skip=all&step=0", "plain, tanh, Xavier, no norm"),
        ("act=tanh&init=xavier&norm=none&skip=all&step=2", "plain, tanh, Xavier, no norm"),
        ("act=relu&init=he&norm=bn&skip=all&step=2", "residual, ReLU, He, batch norm"),
        ("act=sigmoid&init=he&norm=none&skip=all&step=2", "plain, sigmoid, He, no norm")]

failures = []


def check(condition, what):
    print(("ok    " if condition else "FAIL  ") + what)
    if not condition:
        failures.append(what)


class Browser:
    def __init__(self, program, folder):
        self.program, self.folder, self.runs = program, pathlib.Path(folder), 0

    def run(self, page, width, height, *flags):
        """Returns what Chromium printed. Each run has its own empty profile."""
        self.runs += 1
        profile = self.folder / f"profile{self.runs}"
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                   "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
                   "--virtual-time-budget=10000", f"--window-size={width},{height}", *flags, page]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=180, check=False)
        shutil.rmtree(profile, ignore_errors=True)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        return done.stdout.decode("utf-8", errors="replace")

    def dom(self, page, width, height, *flags):
        return self.run(page, width, height, "--dump-dom", *flags)

    def screenshot(self, page, name, width, height, *flags):
        path = self.folder / name
        self.run(page, width, height, f"--screenshot={path}", *flags)
        return path


def state_of(dom):
    """What the page wrote about itself; see apps/report/assets/base.js."""
    found = re.search(r'data-gradflow-report="([^"]*)"', dom)
    return json.loads(html.unescape(found.group(1))) if found else None


def check_state(name, dom):
    state = state_of(dom)
    check(state is not None, f"{name}: the page's script ran")
    if state is None:
        return
    check(state["ready"], f"{name}: the page is ready")
    check(state["errors"] == [], f"{name}: no script error {state['errors']}")
    missing = sorted(set(CHARTS) - set(state["charts"]))
    check(not missing, f"{name}: every chart is drawn, missing: {missing}")
    check(state["overflow"] == 0, f"{name}: no horizontal scrolling ({state['overflow']} px)")


def look(path):
    """Of the screenshot: (distinct colors, share of pixels unlike the most frequent one, mean brightness 0..255)."""
    width, height, channels, rows = read_png(path)
    counts, light, seen = {}, 0, 0
    for row in rows[::3]:
        for x in range(0, width * channels, 3 * channels):
            color = (row[x] << 16) | (row[x + 1] << 8) | row[x + 2]
            counts[color] = counts.get(color, 0) + 1
            light += row[x] + row[x + 1] + row[x + 2]
            seen += 1
    return len(counts), 1 - max(counts.values()) / seen, light / seen / 3


def check_picture(name, path, dark):
    colors, drawn, brightness = look(path)
    check(colors > 60, f"{name}: the screenshot has many colors ({colors})")
    check(drawn > 0.03, f"{name}: the screenshot is not blank ({100 * drawn:.1f} % unlike the ground)")
    check((brightness < 100) == dark, f"{name}: it is {'dark' if dark else 'light'} (mean brightness {brightness:.0f})")


def framed(folder, page, width):
    """A page with the report in a frame of this width: Chromium's window has a least width, a phone is narrower."""
    path = pathlib.Path(folder) / f"frame{width}.html"
    path.write_text(f"""<!DOCTYPE html><body style="margin:0"><iframe id="f" src="{page}" style="width:{width}px;height:3000px;border:0">
</iframe><script>
setInterval(() => {{
  const state = document.getElementById('f').contentDocument.documentElement.getAttribute('data-gradflow-report');
  if (state) document.documentElement.setAttribute('data-gradflow-report', state);
}}, 50);
</script>""", encoding="utf-8")
    return path.as_uri()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sample_report")
    parser.add_argument("--keep", help="folder for the screenshots")
    arguments = parser.parse_args()
    chromium = next((path for path in map(shutil.which, ["chromium", "chromium-browser", "google-chrome"]) if path), None)
    if chromium is None:
        print("no chromium, chromium-browser or google-chrome in PATH: scripts/setup.sh test installs one")
        return 1

    with tempfile.TemporaryDirectory(prefix="gradflow_browser_") as folder:
        report = pathlib.Path(folder) / "report"
        subprocess.run([arguments.sample_report, str(report)], check=True)
        page = (report / "report.html").as_uri()
        browser = Browser(chromium, folder)
        same_origin = "--allow-file-access-from-files"
        dark = "--blink-settings=preferredColorScheme=0"

        check_state("desktop", browser.dom(page, 1280, 900))
        check_state("ReLU, batch norm, step 5", browser.dom(page + RELU_BN, 1280, 900))
        check_state("all networks", browser.dom(page + EVERYTHING, 1280, 900))
        check_state("dark", browser.dom(page, 1280, 900, dark))
        for width in (390, 360):
            check_state(f"{width} px", browser.dom(framed(folder, "report/report.html", width), 800, 900, same_origin))

        pictures = [("desktop", browser.screenshot(page, "desktop.png", 1280, 900), False),
                    ("dark", browser.screenshot(page, "dark.png", 1280, 900, dark), True),
                    ("phone", browser.screenshot(framed(folder, "report/report.html", 390), "phone.png", 500, 1400), False),
                    ("figure", browser.screenshot((report / "figures" / "overview.svg").as_uri(), "figure.png", 1020, 930), False)]
        for name, path, is_dark in pictures:
            check_picture(name, path, is_dark)

        # Every chart but the matrix, which is a table itself, has its numbers below it.
        text = (report / "report.html").read_text(encoding="utf-8")
        opened = report / "opened.html"
        opened.write_text(text.replace("</body>", OPEN_ALL), encoding="utf-8")
        tables = re.search(r'data-tables="(\d+)"', browser.dom(opened.as_uri(), 1280, 900))
        count = int(tables.group(1)) if tables else 0
        check(count == len(CHARTS) - 1, f"a table of numbers below each of {len(CHARTS) - 1} charts ({count})")

        used = report / "used.html"
        used.write_text(text.replace("</body>", USE), encoding="utf-8")
        dom = browser.dom(used.as_uri(), 1280, 900)
        check_state("in use", dom)
        found = re.search(r'data-seen="([^"]*)"', dom)
        seen = json.loads(html.unescape(found.group(1))) if found else []
        check(len(seen) == len(USED) and all(hash == want and name in shown for (hash, shown), (want, name) in zip(seen, USED)),
              f"choices, slider, table and picture choose what is shown: {[hash for hash, _ in seen]}")

        # One network, as of `gradflow train`: no caption speaks of a yardstick or of choices that are not there.
        embedded = re.search(r'(?<=<script type="application/json" id="study">).*?(?=</script>)', text, re.DOTALL)
        study = json.loads(embedded.group())
        study.update(networks=[n for n in study["networks"] if n["id"] == "plain-tanh-he-none"], pair=None)
        single = report / "single.html"
        single.write_text(text[:embedded.start()] + json.dumps(study).replace("<", "\\u003c") + text[embedded.end():], encoding="utf-8")
        dom = browser.dom(single.as_uri(), 1280, 900)
        state = state_of(dom)
        check(state["ready"] and not state["errors"] and "accuracy" in state["charts"], f"one network: drawn {state['errors']}")
        panels = re.search(r'id="panels">.*?id="verdicts-title"', dom, re.DOTALL).group()
        check("Held-out accuracy" in panels and "shallow" not in panels and "Choose" not in panels, "one network: its captions fit")

        # The checks must be able to fail: a page whose chart library is broken, and a blank one.
        broken = report / "broken.html"
        broken.write_text(text.replace("window.GF = {report}", "window.GF = {report}; window.Chart = undefined", 1), encoding="utf-8")
        state = state_of(browser.dom(broken.as_uri(), 1280, 900))
        check(bool(state["errors"]) and set(CHARTS) - set(state["charts"]), "a page without its chart library is noticed")
        blank = report / "blank.html"
        blank.write_text("<!DOCTYPE html><title>blank</title>", encoding="utf-8")
        colors, drawn, _ = look(browser.screenshot(blank.as_uri(), "blank.png", 600, 400))
        check(colors <= 60 and drawn <= 0.03, "a blank page is noticed")

        if arguments.keep:
            os.makedirs(arguments.keep, exist_ok=True)
            for _, path, _ in pictures:
                shutil.copy(path, arguments.keep)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
