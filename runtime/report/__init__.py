"""What `certlut demo` and `certlut report` make: inputs sampled and certified, averages, figures, attacks, and their page."""
