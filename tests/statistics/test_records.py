import dataclasses
import json

import numpy as np
import pytest

from certlut.statistics.records import join, pack, take, unpack
from certlut.statistics.summary import Part, Statistics, summarise
from certlut.threats.declare import Direction, Subspace
from certlut.threats.sets import L1, L2
from reference.fields import flat
from reference.naive_statistics import half_space

THREATS = (L1, L2, Subspace(np.array([True, False, True]), 2, "red"), Direction(np.ones(3), "along"))


def _drawn(inputs: int = 5) -> list[Statistics]:
    moments = half_space(np.array([0.6, 0.0, 0.8]), 0.5).moments(np.random.default_rng(31), inputs, 99)
    return [summarise([m], THREATS, 0.5) for m in moments]


def test_statistics_survive_a_record_bit_for_bit() -> None:
    for statistics in _drawn():
        again = unpack(json.loads(json.dumps(pack(statistics))))
        assert flat(again) == flat(statistics)
    assert len(flat(_drawn()[0])) == 6 + len(_drawn()[0].parts) * len(dataclasses.fields(Part))


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

    monkeypatch.setattr("certlut.statistics.records.Part", WiderPart)
    monkeypatch.setattr("certlut.statistics.records.Statistics", Wider)
    drawn = [widen(s, value) for s, value in zip(_drawn(3), (0.5, 1e-300, 1.0), strict=True)]
    joined = join([unpack(json.loads(json.dumps(pack(s)))) for s in drawn])
    assert vars(joined)["added"].tolist() == [0.5, 1e-300, 1.0]
    assert vars(take(joined, [2, 0]).parts["red"])["second"].tolist() == [[1.0, 1 / 3], [0.5, 1 / 3]]


def test_taking_picks_inputs_in_the_order_asked_for() -> None:
    drawn = _drawn()
    assert flat(take(join(drawn), [3, 0, 4])) == flat(join([drawn[3], drawn[0], drawn[4]]))


def test_inputs_of_different_shapes_are_not_joined() -> None:
    two, three = (half_space(np.ones(d) / np.sqrt(d), 0.5).moments(np.random.default_rng(1), 1, 99) for d in (2, 3))
    with pytest.raises(ValueError, match="inputs of 2 and 3 numbers: expected one shape"):
        join([summarise(moments, (L2,), 0.5) for moments in (three, two)])
