"""Look at a report in Chromium: `python tests/tools/browser.py report/report.html OUT`, where chromium is installed.

Writes desktop.png (1280 wide), dark.png and phone.png (390), and moves every control of the explorer in the page itself: each must
redraw the region or the ball and change the numbers; a click on a heading must sort its table; the contents must stay in sight at
the end of the page. Exit status 1 where something does not.
"""

import html
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
PROBE = """
<script>
(() => {
  const get = (id) => document.getElementById(id);
  const drawn = () => ["region", "ball", "ball0", "limit", "arrow"].map((n) => get("explorer-" + n).getAttribute("d"));
  const said = () => get("explorer-result").textContent;
  const found = { start: said(), width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight };
  for (const [name, value] of [["z", 2.5], ["size", 20], ["angle", 10]]) {
    const before = drawn(), text = said(), slider = get("explorer-" + name);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
    found[name] = { redrawn: drawn().some((d, i) => d !== before[i]), said: said(), changed: said() !== text };
  }
  for (const norm of ["l2", "linf"]) {
    const before = drawn(), text = said();
    const radio = document.querySelector(`input[name=explorer-norm][value=${norm}]`);
    radio.click();
    found[norm] = { redrawn: drawn()[1] !== before[1], said: said(), changed: said() !== text };
  }
  for (const known of ["curvature", "tails", "gradient"]) {
    const before = drawn(), text = said();
    document.querySelector(`input[name=explorer-known][value=${known}]`).click();
    found[known] = { redrawn: drawn()[0] !== before[0], said: said(), changed: said() !== text };
  }
  const table = document.querySelector("table.sortable"), column = 3;
  const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[column]);
  const values = () => cells().map((cell) => Number(cell.dataset.value ?? "nan")).filter((x) => !isNaN(x));
  const sorted = (sign) => values().every((x, i, all) => i === 0 || sign * (x - all[i - 1]) >= 0);
  table.tHead.rows[0].cells[column].querySelector("button").click();
  found.ascending = sorted(1) && table.tHead.rows[0].cells[column].getAttribute("aria-sort") === "ascending";
  table.tHead.rows[0].cells[column].querySelector("button").click();
  found.descending = sorted(-1);
  scrollTo(0, 1e6);
  const bar = document.querySelector("nav").getBoundingClientRect();
  found.contents = scrollY > 1000 && bar.top >= 0 && bar.top < innerHeight / 2;
  parent.postMessage(JSON.stringify(found), "*");
})();
</script>
"""
# A window may be no narrower than 500: the page stands in a frame, which may.
FRAME = """<!DOCTYPE html><style>body { margin: 0 } iframe { border: 0 }</style><pre id="probe" hidden></pre>
<script>addEventListener("message", (e) => { document.getElementById("probe").textContent = e.data; });</script>
<iframe src="page.html" width="WIDTH" height="HEIGHT"></iframe>
"""


def chromium(text: str, width: int, height: int, *options: str) -> str:
    """Open the page `text` in a frame of this size; what Chromium prints."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(text, encoding="utf-8")
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(height)), encoding="utf-8")
        command = ["chromium", *SETTINGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}", *options]
        return subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, check=True, timeout=120).stdout


def probe(text: str, width: int) -> dict:
    """What the page answers when its controls are moved."""
    dom = chromium(text.replace("</body>", PROBE + "</body>"), width, 900, "--virtual-time-budget=3000", "--dump-dom")
    start = dom.index(">", dom.index('<pre id="probe"')) + 1
    return json.loads(html.unescape(dom[start : dom.index("</pre>", start)]))


def main(page: Path, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    bad = []
    text = page.read_text(encoding="utf-8")
    for name, width in (("desktop", 1280), ("phone", 390)):
        found = probe(text, width)
        print(name, json.dumps(found, indent=1))
        if found["width"] > width:
            bad.append(f"{name}: the page is {found['width']} wide, it scrolls sideways")
        for control in ("z", "size", "angle", "l2", "linf", "curvature", "tails", "gradient"):
            if not (found[control]["redrawn"] and found[control]["changed"]):
                bad.append(f"{name}: {control} does not redraw")
        bad += [f"{name}: not sorted {way}" for way in ("ascending", "descending") if not found[way]]
        if not found["contents"]:
            bad.append(f"{name}: the contents are out of sight at the end of the page")
        height = min(found["height"] + 20, 16000)
        chromium(text, width, height, f"--screenshot={(out / f'{name}.png').resolve()}")
        if name == "desktop":
            dark = "--blink-settings=preferredColorScheme=0"
            chromium(text, width, height, dark, f"--screenshot={(out / 'dark.png').resolve()}")
    print("\n".join(bad) or "all controls redraw, tables sort, contents in sight")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
