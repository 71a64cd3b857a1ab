"""The report of a run: one HTML file that opens anywhere, without a network."""

N_ROWS = 20_000
"""How many rows a report takes along unless it is told otherwise."""
