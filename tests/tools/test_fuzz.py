"""Forged tables with right digests: none is believed, none crashes the reader, the prover or the look-up."""

import os
import subprocess
import sys
from pathlib import Path

ENDS = {"refused on loading", "refused by its proof", "mended by its proof", "accepted and sound"}


def test_no_forged_table_is_believed() -> None:
    # In a process of its own, that a crash does not take the tests along, and with every index checked.
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": os.environ["NUMBA_CACHE_DIR"] + "-bounds"}
    seed = int.from_bytes(os.urandom(4), "little")
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), "300", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, (seed, done.stdout, done.stderr[-2000:])
    counts = {end: int(number) for number, end in (line.split(maxsplit=1) for line in done.stdout.splitlines())}
    assert set(counts) <= ENDS, (seed, counts)
    assert min(counts[end] for end in ("refused on loading", "refused by its proof", "accepted and sound")) >= 10, (seed, counts)
    assert sum(counts.values()) == 300
