"""Tasks to results, cycles and timelines."""
