"""A server under load: `nox -s load` prints a table, writes JSON, and fails where the soak finds a fault.

No test of pytest's: it takes minutes, needs wrk, and what it measures is the machine's as well.
"""
