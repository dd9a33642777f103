"""What sampling leaves of an input, in memory and on disk."""
