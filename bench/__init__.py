"""Benchmarks against the peers, on the same dump in one run: `make bench`."""
