"""The type of an array of float64, by its one name."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
