"""What users bring: data sets and models, checked before anything is sampled."""
