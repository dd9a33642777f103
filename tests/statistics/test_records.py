import dataclasses
import json

import numpy as np
import pytest

from certlut.statistics import records
from certlut.statistics.records import join, pack, take, unpack
from certlut.statistics.summary import Part, Statistics, summarise
from certlut.statistics.votes import Tail, kept_classes
from certlut.threats.declare import Direction, Subspace
from certlut.threats.sets import L1, L2
from reference.fields import flat
from reference.naive_statistics import half_space

THREATS = (L1, L2, Subspace(np.array([True, False, True]), 2, "red"), Direction(np.ones(3), "along"))


def _drawn(inputs: int = 5) -> list[Statistics]:
    moments = half_space(np.array([0.6, 0.0, 0.8]), 0.5).moments(np.random.default_rng(31), inputs, 99)
    return [summarise([m], THREATS, 0.5) for m in moments]


def _counted(inputs: int = 5) -> list[Statistics]:
    """With class counts, tails and looks."""
    out = []
    for k, s in enumerate(_drawn(inputs)):
        against = int((s.n - s.count).sum())
        ids, counts = kept_classes(np.array([0, 99 - against, against]), 1)
        tail = Tail("axes", np.array([1.0, 2.0]), np.array([[against, k]]))
        wide = {"classes": ids[None], "class_count": counts[None], "looks": np.array([k]), "tails": {"coordinates": tail}}
        out.append(dataclasses.replace(s, **wide, proposal={"by": "gradient", "copies": 10}))
    return out


def test_statistics_survive_a_record_bit_for_bit() -> None:
    for statistics in (*_drawn(), *_counted()):
        again = unpack(json.loads(json.dumps(pack(statistics))))
        assert flat(again) == flat(statistics)
    assert len(flat(_drawn()[0])) == 13 + len(_drawn()[0].parts) * len(dataclasses.fields(Part))


def test_fields_that_are_added_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class WiderPart(Part):
        second: object = None

    @dataclasses.dataclass(frozen=True)
    class Wider(Statistics):
        added: object = None

    def widen(s: Statistics, value: float) -> Statistics:
        parts = {name: WiderPart(**vars(part), second=np.array([[value, 1 / 3]])) for name, part in s.parts.items()}
        return Wider(**(vars(s) | {"parts": parts, "added": np.array([value])}))

    monkeypatch.setitem(records.NAMED, "parts", WiderPart)
    monkeypatch.setattr("certlut.statistics.records.Statistics", Wider)
    drawn = [widen(s, value) for s, value in zip(_drawn(3), (0.5, 1e-300, 1.0), strict=True)]
    joined = join([unpack(json.loads(json.dumps(pack(s)))) for s in drawn])
    assert vars(joined)["added"].tolist() == [0.5, 1e-300, 1.0]
    assert vars(take(joined, [2, 0]).parts["red"])["second"].tolist() == [[1.0, 1 / 3], [0.5, 1 / 3]]


def test_taking_picks_inputs_in_the_order_asked_for() -> None:
    drawn = _counted()
    picked = take(join(drawn), [3, 0, 4])
    assert flat(picked) == flat(join([drawn[3], drawn[0], drawn[4]]))
    assert picked.looks.tolist() == [3, 0, 4]
    assert picked.tails["coordinates"].largest[:, 1].tolist() == [3, 0, 4]
    assert picked.tails["coordinates"].thresholds.tolist() == [1.0, 2.0]


def test_inputs_with_other_thresholds_or_noise_are_not_joined() -> None:
    one, two, *_ = _counted()
    moved = {"coordinates": dataclasses.replace(two.tails["coordinates"], thresholds=np.array([1.0, 2.5]))}
    with pytest.raises(ValueError, match="thresholds is not the same for all inputs"):
        join([one, dataclasses.replace(two, tails=moved)])
    with pytest.raises(ValueError, match="noise is not the same for all inputs"):
        join([one, dataclasses.replace(two, noise={"kind": "grid", "step": 0.1})])


def test_inputs_of_different_shapes_are_not_joined() -> None:
    two, three = (half_space(np.ones(d) / np.sqrt(d), 0.5).moments(np.random.default_rng(1), 1, 99) for d in (2, 3))
    with pytest.raises(ValueError, match="inputs of 2 and 3 numbers: expected one shape"):
        join([summarise(moments, (L2,), 0.5) for moments in (three, two)])
