"""Can |y|_1, on which linf gains hang, be bounded with less than |Zbar|_1's noise floor? Three ideas beside the bounds in use.

Every idea is handed more than a proof could have: noise exactly Gaussian, the same known variance q (1 - q) in all directions, so
that a deviation along one unknown direction is sqrt(2 L variance / n). An idea that does not win here is not worth its proof.

- weights: |y|_1 <= sqrt(sum 1/w_i) sqrt(sum w_i y_i^2), w from a quarter of the samples, the weighted length from a quarter and a
  half as |y|_2 is; the best of five shrinkages for each draw (for free).
- signs: s = sign X of the first half, s.y by the second, plus what wrong signs can add: the largest over k of the k lowest s_i Y_i.
- shrunk: |m|_1 + sqrt(d) |y - m|_2, m = X with a soft threshold, the best of four for each draw (for free).

Run: python benchmarks/floor.py [--draws N]
"""

import argparse

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from certlut.kernels.normal import density, upper_quantile

# The level of each norm in a certificate of l1, l2 and linf together at alpha = 0.001; half of it where a bound has two events.
ONE, TWO = np.log(1.0 / 2.5e-5), np.log(2.0 / 2.5e-5)
SETTINGS = [(64, 100_000), (3072, 50_000), (3072, 1_000_000), (150_528, 1_250_000)]


def gradient(rng: np.random.Generator, d: int, heavy: bool) -> np.ndarray:
    """A unit vector: normal components, or a few large ones among many small."""
    v = rng.standard_normal(d)
    if heavy:
        v *= np.exp(rng.standard_normal(d))
    return v / np.linalg.norm(v)


def longest(product: float, tau: float) -> float:
    """The largest length N with N^2 - tau N <= product."""
    return 0.5 * (tau + np.sqrt(tau**2 + 4.0 * max(product, 0.0)))


def bounds(rng: np.random.Generator, d: int, n: int, q: float, heavy: bool) -> dict[str, float]:
    """Each bound of |y|_1 over the truth; |y|_2 is 0.8 of the largest."""
    rim = density(upper_quantile(1.0 - q))
    y = 0.8 * rim * gradient(rng, d, heavy)
    variance = q * (1.0 - q)

    def mean(share: float) -> np.ndarray:
        return y + rng.standard_normal(d) * np.sqrt(variance / (share * n))

    def tau(share: float, L: float) -> float:
        return float(np.sqrt(2.0 * L * variance / (share * n)))

    first, second, last = mean(0.25), mean(0.25), mean(0.5)
    half = 0.5 * (first + second)
    size = np.linalg.norm(half)
    length = min(rim, longest(half @ last + size * tau(0.5, TWO), tau(0.5, TWO)))
    out = {"floor": np.abs(0.5 * (half + last)).sum() + np.sqrt(d) * tau(1.0, ONE), "length": np.sqrt(d) * length}

    noise = variance / (0.25 * n)
    kept = max(first @ first / d - noise, 1e-12)
    kept /= kept + noise
    weighted = []
    for factor in (1.0, 3.0, 10.0, 30.0, 100.0):
        w = 1.0 / np.sqrt((kept * first) ** 2 + kept * noise * factor)
        along = w * second
        root = np.sqrt(w.max()) * tau(0.25, TWO)
        weighted.append(longest(along @ last + np.linalg.norm(along) * tau(0.5, TWO), root) * np.sqrt((1.0 / w).sum()))
    out["weights"] = min(weighted)

    sign = np.sign(half)
    wrong = np.concatenate([[0.0], np.cumsum(np.sort(-sign * last)[::-1])])
    reach = np.sqrt(np.arange(d + 1)) * tau(0.5, TWO)
    out["signs"] = sign @ last + np.sqrt(d) * tau(0.5, TWO) + 2.0 * (wrong + reach).max()

    shrunk = []
    for threshold in (0.0, 0.5, 1.0, 2.0):
        m = sign * np.maximum(np.abs(half) - threshold * np.sqrt(2.0 * variance / n), 0.0)
        rest = length**2 - 2.0 * (m @ last - np.linalg.norm(m) * tau(0.5, TWO)) + m @ m
        shrunk.append(np.abs(m).sum() + np.sqrt(d * max(rest, 0.0)))
    out["shrunk"] = min(shrunk)
    truth = np.abs(y).sum()
    return {name: float(value / truth) for name, value in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    names = ("floor", "length", "weights", "signs", "shrunk")
    table = Table("d", "n", "q", "gradient", *names, title=f"bound of |y|_1 over the truth, medians of {arguments.draws}")
    cases = [(d, n, q, heavy) for d, n in SETTINGS for q in (0.9, 0.99) for heavy in (False, True)]
    for d, n, q, heavy in track(cases, "settings"):
        rows = [bounds(rng, d, n, q, heavy) for _ in range(arguments.draws)]
        medians = [float(np.median([row[name] for row in rows])) for name in names]
        table.add_row(f"{d:,}", f"{n:,}", f"{q}", "heavy" if heavy else "normal", *(f"{value:.3f}" for value in medians))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
