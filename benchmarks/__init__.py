"""Benchmark suites: tuples of cases, one file each."""
