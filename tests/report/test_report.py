"""The report end to end, on data of one's own and, quick, on the bundled digits."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certlut import Table
from certlut.attacks.closed_forms import Outcome
from certlut.report import gap, report, study
from certlut.report.card import Attack, read_config
from certlut.report.page import Cell, templates
from certlut.report.report import run_report
from certlut.report.slices import MORE
from certlut.sampling.sampler import Sampler
from certlut.statistics.file import read_statistics
from certlut.tablegen import solve

CARD = """
title = "Two & two"
data = "{folder}/mine.npz"
model = "{folder}/net_{{sigma}}.pt2"
num_classes = 2
inputs = 4
sigma = [0.25, 0.5]
n0 = 20
n = 1500
subspace = "red"
[growth]
sigma = 0.5
inputs = 2
n = [500, 1500]
[attack]
sigma = 0.5
inputs = 1
classifiers = 2
"""
THREATS = ("l1", "l2", "linf", "red", "sparse1", "sparse3", "brightness")
# Three methods, of which the paper's has no bound for three pixels.
ROWS = 3 * len(THREATS) - 1
FILES = ["acr.csv", "acr.md", "acr.tex", "attack.json", "figures", "gap.md", "growth.csv", "report.html"]


def exact(q: float, m1: float, m2: float) -> tuple[float, tuple[float, float, float]]:
    solution = solve(q, m1, m2)
    return solution.radius, solution.multipliers


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(110)
    w = torch.from_numpy(rng.normal(size=(2, 27)).astype(np.float32))
    x = rng.normal(size=(6, 3, 3, 3)).astype(np.float32)
    y = (x.reshape(6, 27) @ w.numpy().T).argmax(axis=1)
    np.savez(folder / "mine.npz", x=x, y=y)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 2, bias=False)).eval()
    net[1].weight = torch.nn.Parameter(w)
    for sigma in ("0.25", "0.5"):
        program = torch.export.export(net, (torch.zeros(5, 3, 3, 3),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        torch.export.save(program, folder / f"net_{sigma}.pt2")
    path = folder / "card.toml"
    path.write_text(CARD.format(folder=folder))
    return path


@pytest.fixture(scope="module")
def made(card: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    assert run_report(card, out, exact) == out / "report.html"
    return out


class Page(HTMLParser):
    """Checks nesting, and gathers what a test asks about."""

    VOID = ("meta", "input", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


def test_every_file_is_there_and_the_statistics_are_kept(made: Path) -> None:
    names = sorted(path.name for path in made.iterdir())
    kept = [name for name in names if name.startswith(("statistics_", "growth_", "samples_")) and name.endswith(".h5")]
    wanted = [["growth", "0.5"]] * 2 + [["samples", "0.5"]] * 3 + [["statistics", "0.25"], ["statistics", "0.5"]]
    assert sorted(name.split("_")[:2] for name in kept) == wanted
    (gap,) = (name for name in names if name.startswith("gap_0.5_") and name.endswith(".json"))
    assert sorted({*names} - {*kept, gap}) == FILES
    figures = sorted(path.name for path in (made / "figures").iterdir())
    assert [name for name in figures if name.startswith("accuracy")] == [f"accuracy_{threat}.svg" for threat in sorted(THREATS)]
    assert len([name for name in figures if name.startswith("growth")]) == 5
    assert len([name for name in figures if name.startswith("slice")]) == 9


def test_the_page_is_well_formed_and_needs_no_network(made: Path) -> None:
    text = (made / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.seen:
        assert not {"src", "srcset"} & set(attributes), tag
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    outside = set(re.findall(r"https?://[^\"'\s)]+", text)) - {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert outside == set()
    assert "@import" not in text
    # Nothing of a template is left; the explorer's numbers may end in braces.
    assert not re.search(r"{[{%#]|[}%#]}", re.sub(r"<script type=\"application/json\".*?</script>", "", text, flags=re.DOTALL))
    assert "Two & two: certified radii" in page.words


def test_every_id_is_there_once_and_every_control_has_a_label(made: Path) -> None:
    page = Page((made / "report.html").read_text())
    # matplotlib's clips and markers are hashes of what they hold: the same id is the same thing.
    ids = [
        a["id"]
        for tag, a in page.seen
        if ("id" in a and tag not in ("path", "clippath")) or (a.get("id") or "").startswith("explorer")
    ]
    assert len(ids) == len(set(ids))
    labelled = {a["for"] for tag, a in page.seen if tag == "label" and "for" in a}
    sliders = {a["id"] for tag, a in page.seen if tag == "input" and a.get("type") == "range"}
    assert sliders == {"explorer-z", "explorer-size", "explorer-angle"} == labelled
    known = [a["value"] for tag, a in page.seen if tag == "input" and a.get("name") == "explorer-known"]
    assert known == ["gradient", *MORE]
    pictures = [a for tag, a in page.seen if tag == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in pictures)
    assert sum(a.get("role") == "img" for a in pictures) == len(THREATS) + 5 + 1 + 9 + 1
    # Contents: every entry leads to a section.
    links = [(a["href"] or "")[1:] for tag, a in page.seen if tag == "a"]
    assert links == [a["aria-labelledby"] for tag, a in page.seen if tag == "section"]
    assert set(links) <= set(ids)
    script = (Path(study.__file__).parent / "templates" / "page.js").read_text()
    used = set(re.findall(r'byId\("(explorer-[a-z0-9-]+)"\)', script))
    assert used <= set(ids)


def test_every_figure_names_its_n_alpha_estimator_and_table(made: Path, shipped: Table) -> None:
    text = (made / "report.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL) + re.findall(
        r'<p class="note">(.*?)</p>', text, re.DOTALL
    )
    sampled = [caption for caption in captions if "alpha = 0.001" in caption]
    assert len(sampled) == 5
    for caption in sampled:
        assert re.search(r"\bn = 1,500|n as (on the axis|a ceiling)", caption)
        assert "tails: estimator adaptive" in caption
        assert shipped.digest[:16] in caption


def test_the_tables_hold_what_the_files_hold(made: Path) -> None:
    text = (made / "report.html").read_text()
    rows = (made / "acr.csv").read_text().splitlines()
    count = 2 * ROWS
    assert len(rows) == 1 + count
    *lines, _, origin = (made / "acr.md").read_text().splitlines()
    assert len(lines) == 2 + count
    assert (
        "n = 1,500, alpha = 0.001, paper: estimator paper; first order: estimator adaptive; tails: estimator adaptive; table "
        in origin
    )
    assert origin in (made / "acr.tex").read_text()
    first = re.search(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert first is not None
    assert first[1].count("<tr>") == count
    by = {tuple(row.split(",")[:3]): float(row.split(",")[7]) for row in rows[1:]}
    for sigma in ("0.25", "0.5"):
        assert (sigma, "sparse3", "paper") not in by
        for threat in ("l1", "sparse1", "sparse3", "brightness"):
            assert by[sigma, threat, "tails"] > 0.97 * by[sigma, threat, "first order"]
    for row in rows[1:]:
        value = float(row.split(",")[-3])
        assert f'data-value="{value!r}"' in first[1]


def test_every_certified_input_is_attacked_under_every_threat_and_none_is_refuted(made: Path, card: Path) -> None:
    counts = json.loads((made / "attack.json").read_text())
    assert counts["total"]["violations"] == 0
    assert counts["total"]["points"] > 5000
    assert counts["tightness"]["radii"] == 2
    assert counts["tightness"]["largest_deviation"] < 1e-6
    # The card attacks the first certified input only.
    assert [one["threat"] for one in counts["network"]] == [*THREATS]
    # Nearest breaks of a linear network: its row difference w and margin b give b / |w|_dual.
    with np.load(card.parent / "mine.npz") as data:
        place = counts["network"][0]["input"]
        x, y = data["x"][place], int(data["y"][place])
    w = torch.export.load(card.parent / "net_0.5.pt2").state_dict["1.weight"].detach().numpy()
    difference = (w[y] - w[1 - y]).reshape(3, 3, 3)
    margin = float((difference * x).sum())
    dual = {"l1": np.abs(difference).max(), "l2": np.linalg.norm(difference), "linf": np.abs(difference).sum()}
    dual |= {"red": np.linalg.norm(difference[0]), "sparse1": dual["l1"], "brightness": abs(difference.sum()) / 27**0.5}
    for one in counts["network"]:
        assert not one["refuted"]
        if one["threat"] in dual:
            truth = margin / dual[one["threat"]]
            assert one["radius"] < truth < one["broken"] < 1.25 * truth
    rows = (made / "gap.md").read_text().splitlines()
    assert len(rows) == 2 + len(THREATS) + 2
    first = next(one for one in counts["network"] if one["threat"] == "l1")
    assert f"| {100 * first['radius'] / first['broken']:.0f} % |" in rows[2]


def test_a_refuted_certificate_is_a_red_alarm_after_everything_is_written(
    card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = study.certified

    def boasting(*arguments: object) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for method, radii in honest(*arguments):
            yield method, {name: 9.0 * radius for name, radius in radii.items()}

    monkeypatch.setattr(study, "certified", boasting)
    # What does not depend on it, and takes its time.
    for name, nothing in (("exact_slices", []), ("constructed_curves", []), ("attack_closed_forms", Outcome())):
        monkeypatch.setattr(report, name, lambda *_, nothing=nothing: nothing)
    with pytest.raises(ArithmeticError, match=r"ALARM: [67] certificates refuted, see .*report\.html: input \d, l1: certified"):
        run_report(card, tmp_path / "out", exact)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert ("div", {"class": "alarm", "role": "alert"}) in page.seen
    assert "A certificate is refuted" in page.words
    assert {*FILES} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_search_that_was_stopped_goes_on(card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shipped: Table) -> None:
    config = dataclasses.replace(read_config(card), attack=Attack(0.5), n=1000)
    done = study.run_study(config, tmp_path, shipped, lambda _: None)
    searched: list[int] = []
    honest = gap._search

    def stopping(*arguments: Any) -> list[gap.Found]:
        if len(searched) == 2:
            raise KeyboardInterrupt
        searched.append(arguments[-1])
        return honest(*arguments)

    monkeypatch.setattr(gap, "_search", stopping)
    with pytest.raises(KeyboardInterrupt):
        gap.search_all(done, tmp_path)
    monkeypatch.setattr(gap, "_search", honest)
    found = gap.search_all(done, tmp_path)
    places = sorted({one.input for one in found})
    assert set(searched) < set(places)
    assert len(found) == len(places) * len(THREATS)
    monkeypatch.setattr(gap, "_search", None)
    # Kept, breaks that were not found among them.
    assert gap.search_all(done, tmp_path) == found


def test_every_figure_can_stand_alone(made: Path, shipped: Table) -> None:
    for path in (made / "figures").iterdir():
        root = ET.fromstring(path.read_text())
        words = " ".join("".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))
        if path.name.startswith("slice"):
            assert "zeroth order" in words
            assert "exact solver" in words
        else:
            assert "alpha = 0.001" in words
            assert f"table {shipped.digest[:16]}" in words
            kinds = {"growth": "l2, red channel", "samples": "with targets"}
            assert kinds.get(path.stem.partition("_")[0], "with tails") in words
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert title.text == root.get("aria-label")


def test_nothing_to_attack_is_said(made: Path, card: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    with np.load(card.parent / "mine.npz") as data:
        np.savez(tmp_path / "wrong.npz", x=data["x"], y=1 - data["y"])
    wrong.write_text(card.read_text().replace(f"{card.parent}/mine.npz", f"{tmp_path}/wrong.npz"))
    run_report(wrong, tmp_path / "out", exact)
    assert "nothing was attacked" in (tmp_path / "out" / "report.html").read_text()
    assert "nothing was attacked" not in (made / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "attack.json").read_text())["network"] == []


def test_own_data_skipped_and_models_with_other_braces(card: Path, tmp_path: Path) -> None:
    skipping = tmp_path / "skip.toml"
    skipping.write_text(
        card.read_text().replace("inputs = 4", "inputs = 3\nskip = 2", 1).replace("sigma = [0.25, 0.5]", "sigma = [0.5]")
    )
    run_report(skipping, tmp_path / "out", exact)
    (path,) = (tmp_path / "out").glob("statistics_*.h5")
    assert read_statistics(path).idx.tolist() == [0, 2, 4]
    braces = tmp_path / "braces.toml"
    braces.write_text(card.read_text().replace("{sigma}", "{s}"))
    with pytest.raises(FileNotFoundError, match=r"net_\{s\}\.pt2"):
        run_report(braces, tmp_path / "b", exact)
    split = tmp_path / "split.toml"
    split.write_text(card.read_text().replace("num_classes = 2", 'num_classes = 2\nsplit = "train"'))
    with pytest.raises(ValueError, match="a file is one split"):
        run_report(split, tmp_path / "s", exact)


def test_a_second_run_samples_nothing_and_gives_the_same_page(card: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (made / "report.html").read_text()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(Sampler, "draw", refuse)
    run_report(card, made, exact)
    assert (made / "report.html").read_text() == before


@pytest.mark.parametrize(("old", "new"), [("n = 1500\nsub", "n = 1400\nsub"), ("inputs = 4", "inputs = 3"), ('"red"', '"left"')])
def test_other_settings_are_sampled_afresh(
    card: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    changed = tmp_path / "card.toml"
    text = card.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    drawn: list[Path] = []

    def stop(*arguments: object, **_: object) -> None:
        drawn.append(Path(str(arguments[2])))
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "sample_dataset", stop)
    with pytest.raises(KeyboardInterrupt):
        run_report(changed, made, exact)
    assert len(drawn) == 1
    assert drawn[0].name.startswith("statistics_0.25_")
    assert not drawn[0].exists()


def test_quick_digits_with_another_number_of_inputs(tmp_path: Path) -> None:
    run_report("digits", tmp_path, exact, quick=True, inputs=2)
    assert {"network_0.12.pt", "network_1.pt", *FILES} <= {path.name for path in tmp_path.iterdir()}
    assert "2</strong>" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "acr.md").read_text().splitlines()) == 4 + 2 * ROWS


def test_refusals_come_before_any_work(card: Path, tmp_path: Path, shipped: Table) -> None:
    with pytest.raises(ValueError, match="inputs = 0"):
        run_report("digits", tmp_path / "a", exact, inputs=0)
    few = tmp_path / "few.toml"
    few.write_text(card.read_text().replace("n = [500, 1500]", "n = [5]"))
    with pytest.raises(ValueError, match="n = 5: even a unanimous vote"):
        run_report(few, tmp_path / "b", exact)
    grey = tmp_path / "grey.toml"
    grey.write_text('title = "t"\ndata = "digits"\ninputs = 2\nsubspace = "red"\n')
    with pytest.raises(ValueError, match="subspace = 'red': the inputs have shape"):
        run_report(grey, tmp_path / "c", exact)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_every_colour_of_the_pictures_has_one_for_the_dark(made: Path) -> None:
    text = (made / "report.html").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    names = [dict(re.findall(r"--(\w+): (#[0-9a-f]+);", block)) for block in (light, dark)]
    assert set(names[0]) == set(names[1])
    used = set(re.findall(r"var\(--(\w+)", text))
    assert used == set(names[0])
    body = text[text.index("<body>") :]
    # No colour is left that stays as it is, but as what a variable falls back to.
    assert set(re.findall(r"(?:fill|stroke): ?#[0-9a-f]+", body)) == set()
    for name, colour in names[0].items():
        if name.startswith("c"):
            assert name == "c" + colour[1:]


def test_a_table_marks_losses_escapes_text_and_sorts_by_numbers() -> None:
    sortable = templates().get_template("parts.html").module.sortable
    rows = [[Cell("a < b"), Cell("-0.50 [-0.60, -0.40]", -0.5, loss=True)], [Cell("c"), Cell("no radius")]]
    text = sortable(("name", "gain & %"), rows)
    assert '<td class="text">a &lt; b</td>' in text
    assert '<td class="loss" data-value="-0.5">-0.50 <small>[-0.60, -0.40]</small></td>' in text
    assert "<td>no radius</td>" in text
    assert '<th scope="col" class="text">name</th>' in text
    assert '<th scope="col">gain &amp; %</th>' in text
