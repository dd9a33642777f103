"""Find a table, check it, open it: an immutable `Table` whose `radius` is the sound look-up."""

import importlib.metadata
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..kernels.arrays import Array, reals
from .format import AXES, TableData, read_table
from .kernel import axis_maps, lookup, lookup_many


class UnprovenTable(UserWarning):
    """The table's cuts come from quadrature and have not been bounded by ball arithmetic.

    Examples:
        >>> import warnings
        >>> from certlut import UnprovenTable, load
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", UnprovenTable)  # refuse such a table
        ...     table = load()
    """


class Table:
    """Radius surfaces in memory; made by `load`, never changed.

    Examples:
        >>> from certlut import load
        >>> table = load()
        >>> round(table.radius(0.9, -0.1, 0.05), 3)
        1.432
        >>> table.radius([0.9, 0.99], -0.01, 0.0).shape
        (2,)
    """

    def __init__(self, data: TableData, path: Path | None = None) -> None:
        d = data.datasets
        self.path = path
        self.sigma = 1.0 if data.sigma is None else data.sigma
        """Factor from sigma = 1 units to `radius`; 1.0 for a normalised table, which serves every sampler."""
        self.normalised = data.sigma is None
        self.data_version = data.data_version
        self.digest = data.digest
        nodes = np.stack([d[name].astype(np.float64) for name in ("radius", "c", "a0", "a1", "a2")], axis=-1)
        z, rho, theta = (np.ascontiguousarray(d[name], dtype=np.float64) for name in AXES)
        self._arrays = (*axis_maps(z, rho, theta), nodes)
        for array in self._arrays:
            array.flags.writeable = False

    @property
    def arrays(self) -> tuple[Array, Array, Array]:
        """scale, position and nodes (radius, c, a0, a1, a2), read-only: what kernel.py takes."""
        return self._arrays

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self._arrays[-1].shape[:3])
        return f"Table({str(self.path)!r}, {shape} nodes, sigma={self.sigma}, data_version={self.data_version})"

    def radius(self, q: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike, threads: int = 1) -> float | npt.NDArray[np.float64]:
        """A certified radius, `sigma` times at most the exact one.

        Args:
            q: lower bound of the smoothed probability. NaN gives NaN, q <= 1/2 gives 0.0.
            m1: lower bound of the gradient along the perturbation, sigma = 1 units.
            m2: lower bound across it; m2 < 0 counts as 0. On or beyond the rim `hypot(m1, m2) = phi(Phi^-1(q))` the answer is
                at least Cohen's.
            threads: how many threads share the work; the kernel releases the GIL.

        Returns:
            A float for scalars, else a float64 array of the broadcast shape. Contiguous float64 arrays of one shape are read where
            they are: nothing else of their size is allocated.

        Raises:
            ValueError: some q >= 1 or q < 0; fewer than one thread.
        """
        if threads < 1:
            raise ValueError(f"threads = {threads}: expected 1 or more")
        if isinstance(q, float) and isinstance(m1, float) and isinstance(m2, float):
            _check_probability(q)
            return self.sigma * lookup(q, m1, m2, *self._arrays) * self._down
        q, m1, m2 = np.broadcast_arrays(*(reals(name, x) for name, x in (("q", q), ("m1", m1), ("m2", m2))))
        if q.size:
            # fmin and fmax pass over NaN.
            _check_probability(float(np.fmin.reduce(q, axis=None)))
            _check_probability(float(np.fmax.reduce(q, axis=None)))
        out = np.empty(q.size)
        columns = (q.ravel(), m1.ravel(), m2.ravel(), out)
        if threads > 1:
            parts = zip(*(np.array_split(column, threads) for column in columns), strict=True)
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(self._fill, *zip(*parts, strict=True)))
        else:
            self._fill(*columns)
        return float(out[0]) if q.ndim == 0 else out.reshape(q.shape)

    def _fill(self, q: Array, m1: Array, m2: Array, out: Array) -> None:
        lookup_many(q, m1, m2, *self._arrays, out)
        if self.sigma != 1.0:
            out *= self.sigma
            out *= self._down

    @property
    def _down(self) -> float:
        """Makes up for the rounding of the product with sigma."""
        return 1.0 if self.sigma == 1.0 else 1.0 - 4e-16

    def check_sigma(self, sigma: float) -> None:
        """ValueError unless this table serves a sampler with noise `sigma`."""
        if not self.normalised and not math.isclose(self.sigma, sigma, rel_tol=1e-12):
            raise ValueError(
                f"{self.path}: table bound to sigma = {self.sigma}, the sampler has sigma = {sigma}; "
                "use a normalised table or build one for this sigma"
            )


def _check_probability(q: float) -> None:
    if q < 0.0 or q >= 1.0:
        raise ValueError(f"q = {q!r}: expected a probability 0 <= q < 1 (a lower confidence bound is never 1)")


def find(path: str | os.PathLike[str] | None = None, variable: str = "CERTLUT_TABLE", name: str = "default.h5") -> Path:
    """The table to use: `path`, else $CERTLUT_TABLE, else tables/default.h5 beside the packages, else the installed copy.

    `variable` and `name` are those of another kind of table.

    Raises:
        FileNotFoundError: none of these.
    """
    if path is not None:
        return Path(path)
    if chosen := os.environ.get(variable):
        return Path(chosen)
    beside = Path(__file__).resolve().parents[2] / "tables" / name
    if beside.is_file():
        return beside
    # All that go by this name: a source folder that was built from has metadata too, without the installed files.
    for installed in importlib.metadata.distributions(name="certlut"):
        for file in installed.files or ():
            if file.parts[-3:] == ("certlut", "tables", name):
                return Path(str(file.locate())).resolve()
    raise FileNotFoundError(
        f"no table found: no {name} beside the packages, none installed with certlut; "
        f"give a path, set {variable}, or write tables/{name} by `certlut build`"
    )


def load(path: str | os.PathLike[str] | Table | None = None) -> Table:
    """Open a table; warns `UnprovenTable` where data_version is 0.

    Args:
        path: the file; by default $CERTLUT_TABLE, else the shipped table. An open table is returned as it is.

    Raises:
        FileNotFoundError: no table there.
        TableError: a ValueError that names what is wrong with the file and what to do.

    Examples:
        >>> from certlut import load
        >>> load().normalised  # serves every sigma
        True
    """
    if isinstance(path, Table):
        return path
    found = find(path)
    data = read_table(found)
    if data.data_version < 1:
        warnings.warn(f"{found}: data_version 0, not proven; run `certlut prove {found}`", UnprovenTable, stacklevel=2)
    return Table(data, found)
