"""Costs of a guard: `nox -s bench` prints tables and writes JSON. It is not a timed test, and fails no build."""
