"""The leaves: Numba's flags, the normal distribution, the slab."""
