"""Search for what would break a certificate: classifiers with known votes, networks."""
