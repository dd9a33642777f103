"""From counts and sums to confidence bounds, each at its level of one alpha."""
