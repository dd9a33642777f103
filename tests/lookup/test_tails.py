"""certlut.lookup.tails and frontier: never above the exact tail radius and near it; thresholds, discs, the file, bad input."""

import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certlut.kernels.covering import Covering
from certlut.kernels.greedy import BEND, ray_radii
from certlut.lookup.frontier import base, climb
from certlut.lookup.table import UnprovenTable
from certlut.lookup.tail_format import THRESHOLDS, TailData, write_tails
from certlut.lookup.tails import TailTable, insets, load_tails
from certlut.lookup.votes import group, scratch
from certlut.tablegen.tail_radius import tail_radius
from certlut.tablegen.tails import tail_bound
from reference import naive_tails as naive

TAU = np.array(THRESHOLDS)
ROOT = Path(__file__).resolve().parent.parent.parent
FAMILIES = {
    "l1, 2": Covering.lp(1, 2),
    "l1, 784": Covering.lp(1, 784),
    "l1.4, 100": Covering.lp(1.4, 100),
    "sparse 2": Covering.sparse(2),
    "l2, 8": Covering.lp(2, 8),
    "l3, 5": Covering.lp(3, 5),
    "linf, 4": Covering.lp(math.inf, 4),
    "net": Covering.net(0.12),
    "line": Covering.line(),
}


def realistic(rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """(eps, p) as from n samples of a half-space, a corner or votes that do not look at e."""
    eps, n = float(10.0 ** rng.uniform(-4.0, math.log10(0.4))), 10.0 ** rng.uniform(4.0, 6.0)
    kind = rng.integers(0, 3)
    if kind == 0:
        p = naive.half_space(eps, rng.uniform(0.1, 0.9), TAU)
    elif kind == 1:
        p = naive.corner(math.sqrt(eps), math.sqrt(eps), TAU)[1]
    else:
        p = eps * ndtr(-TAU)
    return eps, np.minimum(p + 4.0 * np.sqrt(p / n) + 9.0 / n, 1.0)


# Soundness and tightness


@pytest.mark.parametrize("name", FAMILIES)
def test_never_above_the_exact_radius_and_near_it(tails: TailTable, name: str) -> None:
    covering, rng = FAMILIES[name], np.random.default_rng([81, len(name)])
    loss = []
    for _ in range(8):
        eps, p = realistic(rng)
        size = float(tails.radii([eps], TAU, p[None], [covering])[0, 0])
        exact = tail_radius(covering.p, covering.w, eps, TAU, p)
        # The exact one is found to 1e-5, from below.
        assert size <= exact * (1.0 + 3e-5)
        assert size >= -float(ndtri(eps)) / covering.kappa * (1.0 - 1e-9)
        loss.append(1.0 - size / exact)
    assert np.median(loss) <= 0.01
    assert max(loss) <= 0.03


@pytest.mark.parametrize("seed", range(12))
def test_no_profile_however_odd_gets_more_than_the_exact_radius(tails: TailTable, seed: int) -> None:
    rng = np.random.default_rng([82, seed])
    eps, tau, p = naive.draw_profile(rng)
    coverings = [FAMILIES[name] for name in ("l1, 784", "sparse 2", "net")]
    # Where the table has other thresholds, the largest one below serves: the exact radius of the profile as it is bounds it.
    for covering, size in zip(coverings, tails.radii([eps], tau, p[None], coverings)[0], strict=True):
        assert size <= tail_radius(covering.p, covering.w, eps, tau, p) * (1.0 + 3e-5)


def test_what_a_ray_certifies_holds_on_all_of_it(tails: TailTable) -> None:
    rng = np.random.default_rng(83)
    work, chi = scratch(TAU.size, tails.nodes.levels.size // tails.nodes.radii.size), tails.nodes.chi
    theta = np.array([0.0, *np.degrees(np.array([0.3, 0.7, 1.1]))])
    places = [int(np.abs(np.degrees(tails.angles) - x).argmin()) for x in theta]
    for _ in range(6):
        eps, p = realistic(rng)
        count = group(eps, p, tails.nodes.ceiling, work)
        j, spare = base(tails.nodes, eps, -float(ndtri(eps)), places[-1])
        for i in reversed(places):
            j, spare, rho = climb(tails.nodes, work, count, i, j, spare, int(rng.integers(1, 6)))
            r = np.linspace(0.0, rho, 120)
            turn = tails.angles[i]
            votes = np.asarray(tail_bound(r * math.cos(turn), r * math.sin(turn), eps, TAU, p))
            assert (votes <= 0.5 - BEND * chi[i] ** 2 * r**2 + 2e-12).all()
            assert rho >= tails.nodes.radii[j]


def test_insets_cover_every_sector_up_to_its_cap() -> None:
    for theta in (np.array([0.0, 1.0, 4.0, 9.0, 20.0, 40.0, 75.0]), np.linspace(0.0, 80.0, 33), np.array([0.0, 30.0, 31.0])):
        chi, cap = insets(theta)
        assert (np.diff(chi) >= 0.0).all()
        assert (cap >= 1.0).all()
        for i in range(1, theta.size):
            half = math.radians(theta[i] - theta[i - 1]) / 2.0
            s = np.linspace(1.0, cap[i], 200)
            distance = np.sqrt((s - 1.0) ** 2 + 4.0 * s * math.sin(half) ** 2)
            assert (distance <= chi[i] + s * chi[i - 1]).all()
            # And not much further.
            further = 1.02 * cap[i]
            assert math.hypot(further - 1.0, 2.0 * math.sqrt(further) * math.sin(half)) > chi[i] + further * chi[i - 1]


def test_the_line_is_the_march_and_not_the_table(tails: TailTable) -> None:
    rng = np.random.default_rng(84)
    profiles = [realistic(rng) for _ in range(10)]
    eps, p = np.array([x for x, _ in profiles]), np.array([x for _, x in profiles])
    assert np.array_equal(tails.radii(eps, TAU, p, [Covering.line()])[:, 0], ray_radii(eps, TAU, p))
    # Next to it a net of a tiny angle, through the table.
    narrow = tails.radii(eps, TAU, p, [Covering.net(1e-6)])[:, 0]
    assert (narrow <= ray_radii(eps, TAU, p) * (1.0 + 1e-12)).all()
    assert np.median(narrow / ray_radii(eps, TAU, p)) >= 0.98


def test_a_band_that_fails_half_way_is_not_certified_beyond(tails: TailTable) -> None:
    # h = 1{.25 < u < 1.75}: B(1, 0) > 1/2 > B(2, 0).
    eps, p = float(ndtr(-0.25) - ndtr(-1.75)), np.maximum(ndtr(-TAU) - ndtr(-1.75), 0.0)
    assert tail_bound(1.0, 0.0, eps, TAU, p) > 0.5 > tail_bound(2.0, 0.0, eps, TAU, p)
    for covering in FAMILIES.values():
        size = tails.radii([eps], TAU, p[None], [covering])[0, 0]
        assert size < 1.0
        assert size <= tail_radius(covering.p, covering.w, eps, TAU, p) * (1.0 + 3e-5)


# Order


def test_more_votes_against_never_help(tails: TailTable) -> None:
    rng = np.random.default_rng(85)
    coverings = list(FAMILIES.values())
    for _ in range(30):
        eps, p = realistic(rng)
        k = rng.integers(0, TAU.size)
        worse = [(eps, np.where(np.arange(TAU.size) == k, 1.3 * p, p)), (min(1.2 * eps, 0.49), p)]
        sizes = tails.radii([eps] * 3, TAU, np.array([p, *(q for _, q in worse)]), coverings)
        more = tails.radii([eps, *(e for e, _ in worse)], TAU, np.array([p, *(q for _, q in worse)]), coverings)
        assert (more[1] <= sizes[0] * (1.0 + 3e-3)).all()
        assert (more[2] <= sizes[0] * (1.0 + 3e-3)).all()


def test_inputs_and_threats_do_not_touch_each_other(tails: TailTable) -> None:
    rng = np.random.default_rng(86)
    profiles = [realistic(rng) for _ in range(9)]
    eps, p = np.array([x for x, _ in profiles]), np.array([x for _, x in profiles])
    coverings = list(FAMILIES.values())
    together = tails.radii(eps, TAU, p, coverings)
    assert np.array_equal(together, tails.radii(eps, TAU, p, coverings, threads=3))
    for n in range(9):
        assert np.array_equal(together[n], tails.radii(eps[[n]], TAU, p[[n]], coverings)[0])
    # A threat alone walks where it must, among others further: never less sound, and the same up to that.
    alone = np.stack([tails.radii(eps, TAU, p, [covering])[:, 0] for covering in coverings], axis=1)
    assert alone == pytest.approx(together, rel=6e-3)


# Thresholds


def test_other_thresholds_are_served_by_the_largest_one_below(tails: TailTable) -> None:
    eps, p = 0.05, 0.05 * ndtr(-TAU) + 1e-5
    coverings = [FAMILIES["l1, 784"], FAMILIES["line"]]
    fewer = np.array([0.6, 1.0, 2.1, 3.0])
    bounds = 0.05 * ndtr(-fewer) + 1e-5
    place = np.searchsorted(fewer, TAU, side="right") - 1
    mapped = np.where(place >= 0, bounds[place], 1.0)
    served = tails.radii([eps], fewer, bounds[None], coverings)
    assert np.array_equal(served, tails.radii([eps], TAU, mapped[None], coverings))
    assert (served <= tails.radii([eps], TAU, p[None], coverings)).all()
    # A threshold a hair above the table's must not serve it.
    above = np.nextafter(TAU, np.inf)
    shifted = tails.radii([eps], above, p[None], coverings)
    assert np.array_equal(shifted, tails.radii([eps], TAU, np.concatenate([[1.0], p[:-1]])[None], coverings))
    assert np.array_equal(tails.radii([eps], TAU, p[None], coverings), tails.radii([eps], [*TAU, 9.0], [[*p, 0.0]], coverings))


def test_no_thresholds_leave_the_zeroth_order_radius(tails: TailTable) -> None:
    z = -float(ndtri(0.1))
    size = tails.radii([0.1], [], np.empty((1, 0)), [FAMILIES["sparse 2"], FAMILIES["line"]])[0]
    assert size == pytest.approx([z, z], rel=2e-3)
    assert (size <= z).all()


# Discs


def test_discs_and_sizes(tails: TailTable) -> None:
    eps = 0.2
    p = np.minimum(2.0 * eps * ndtr(-TAU) + 1e-5, 1.0)[None]
    z = -float(ndtri(eps))
    for covering in FAMILIES.values():
        plain = tails.radii([eps], TAU, p, [covering])[0, 0]
        wide = tails.radii([eps], TAU, p, [covering], math.inf, [[[1.15 * z]]])[0, 0]
        assert wide >= plain
        assert wide <= tail_radius(covering.p, covering.w, eps, TAU, p[0], 1.15 * z) * (1.0 + 3e-5)
        assert wide >= 1.15 * z / covering.kappa * (1.0 - 1e-9)
        # A disc that holds for smaller balls only is of no use beyond them, and takes nothing away.
        assert tails.radii([eps], TAU, p, [covering], [[[0.5 * plain]]], [[[9.0]]])[0, 0] == plain
        assert tails.radii([eps], TAU, p, [covering], [[[1.01 * plain]]], [[[9.0]]])[0, 0] == pytest.approx(1.01 * plain, rel=1e-9)
        both = tails.radii([eps], TAU, p, [covering], [[[0.5 * plain, math.inf]]], [[[9.0, 1.15 * z]]])[0, 0]
        assert both == wide


# Edges of the domain


def test_no_majority_and_hardly_one(tails: TailTable) -> None:
    p = np.zeros((1, TAU.size))
    coverings = list(FAMILIES.values())
    for eps in (0.5, 0.7, 1.0):
        assert not tails.radii([eps], TAU, p, coverings).any()
    for eps in (0.4999999, 1e-12, 1e-16, 0.0):
        sizes = tails.radii([eps], TAU, np.full((1, TAU.size), eps), coverings)[0]
        for covering, size in zip(coverings, sizes, strict=True):
            assert size >= -float(ndtri(max(eps, 1e-300))) / covering.kappa * (1.0 - 1e-9)
            if eps > 0.0:
                assert size <= tail_radius(covering.p, covering.w, eps, TAU, np.full(TAU.size, eps)) * (1.0 + 3e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": [math.nan]}, "eps"),
        ({"eps": [-0.1]}, "eps"),
        ({"eps": [1.5]}, "eps"),
        ({"p": [[0.1, math.nan]]}, "p: "),
        ({"p": [[0.1, -0.1]]}, "p: "),
        ({"p": [[0.1]]}, "shapes"),
        ({"eps": [0.1, 0.1]}, "shapes"),
        ({"eps": 0.1}, "shapes"),
        ({"tau": [2.0, 1.0]}, "increasing"),
        ({"tau": [1.0, math.inf]}, "finite"),
        ({"covered": [[[math.nan]]]}, "covered"),
        ({"covered": [[[-1.0]]]}, "covered"),
        ({"covered": [[[math.inf]]]}, "covered"),
        ({"sizes": [[[math.nan]]]}, "sizes"),
        ({"threads": 0}, "threads"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tails: TailTable, changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"eps": [0.1], "tau": [1.0, 2.0], "p": [[0.05, 0.01]], "coverings": [Covering.sparse(2)]}
    with pytest.raises(ValueError, match=message) as error:
        tails.radii(**(arguments | changes))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


# The shipped file


def test_the_shipped_table_is_proven_small_and_read_only(tails: TailTable, tails_data: TailData) -> None:
    assert tails.data_version >= 1
    assert tails.thresholds == THRESHOLDS
    assert tails_data.proof["nodes"] == len(tails_data.datasets["theta"]) * len(tails_data.datasets["r"])
    assert (ROOT / "tables" / "tails.h5").stat().st_size <= 16e6
    with pytest.raises(ValueError, match="read-only"):
        tails.nodes.excess[0] = 0.0


def test_a_table_is_found_by_path_then_variable_then_the_shipped_one(
    tails_data: TailData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "tables" / "tails.h5", tmp_path / "mine.h5")
    monkeypatch.setenv("CERTLUT_TAILS", str(tmp_path / "none.h5"))
    assert load_tails(tmp_path / "mine.h5").digest == tails_data.digest
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        load_tails()
    monkeypatch.delenv("CERTLUT_TAILS")
    assert load_tails().digest == tails_data.digest
    assert "data_version" in repr(load_tails())


def test_a_table_that_is_not_proven_says_so(tails_data: TailData, tmp_path: Path) -> None:
    write_tails(tmp_path / "t.h5", TailData(tails_data.datasets, tails_data.generator))
    with pytest.warns(UnprovenTable, match="not proven"):
        load_tails(tmp_path / "t.h5")
    write_tails(tmp_path / "t.h5", TailData(tails_data.datasets, tails_data.generator, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_tails(tmp_path / "t.h5")
