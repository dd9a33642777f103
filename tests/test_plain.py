"""Runs without a target leave what they left before, to the last vote; how to renew what is stored: reference/plain.py."""

import json

import numpy as np
import pytest

from certlut import Table
from reference.plain import GOLDEN, INPUTS, plain


@pytest.mark.parametrize("proposal", ["votes", "gradient"])
def test_plain_runs_leave_what_is_stored(proposal: str, shipped: Table) -> None:
    stored, found = json.loads(GOLDEN.read_text(encoding="utf-8"))[proposal], plain(proposal, shipped)
    assert stored.keys() == found.keys()
    for name in ("votes", "count", "classes", "class_count"):
        assert found[name] == stored[name], name
    for name, values in found.items():
        assert len(values) == len(INPUTS)
        # Sums are rounded in an order that a machine is free to choose.
        assert np.asarray(values) == pytest.approx(np.asarray(stored[name]), rel=1e-11, abs=0.0), name


def test_what_is_stored_tells_the_inputs_and_the_proposals_apart() -> None:
    votes, gradient = (json.loads(GOLDEN.read_text(encoding="utf-8"))[by] for by in ("votes", "gradient"))
    assert votes["count"] == gradient["count"]
    assert votes["length_lower"] != gradient["length_lower"]
    assert len({radius > 0.0 for radius in votes["radius_l2"]}) == 2
    assert sum(radius > 0.0 for radius in votes["radius_l1"]) >= 4
