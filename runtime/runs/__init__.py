"""Files in, files out: sampling, certifying, merging, other tools' counts."""
