"""The README's table of gains from finished reports: `python benchmarks/gains.py report-digits report-patches`."""

import csv
import sys
from pathlib import Path


def read(folder: str) -> dict[tuple[str, str], dict[str, str]]:
    """(sigma, threat) -> row of acr.csv, by the last estimator in it."""
    with (Path(folder) / "acr.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # The subspaces of different data sets share a row.
    return {(row["sigma"], row["threat"] if row["threat"] in ("l1", "l2", "linf") else "part"): row for row in rows}


def cell(row: dict[str, str]) -> str:
    gain, low, high = (float(row[f"gain_percent{end}"]) for end in ("", "_low", "_high"))
    digits = 2 if abs(gain) < 1 else 1
    name = "" if row["threat"] in ("l1", "l2", "linf") else f"{row['threat']}: "
    return (
        f"{name}{float(row['cohen']):.4f} → {float(row['ours']):.4f}, {gain:+.{digits}f} % [{low:+.{digits}f}, {high:+.{digits}f}]"
    )


def main(folders: list[str]) -> None:
    tables = [read(folder) for folder in folders]
    print("| sigma | threat | " + " | ".join(folders) + " |")
    print("|---|---|" + "---|" * len(folders))
    for sigma, threat in tables[0]:
        name = "subspace, l2" if threat == "part" else threat
        print(f"| {sigma} | {name} | " + " | ".join(cell(table[sigma, threat]) for table in tables) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
