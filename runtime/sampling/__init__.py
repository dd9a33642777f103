"""Noise, votes and their sums, in torch."""
