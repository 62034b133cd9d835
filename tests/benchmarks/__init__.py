"""What a guard costs: `nox -s bench` prints tables and writes JSON. It is no timed test and fails no build."""
