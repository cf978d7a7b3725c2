"""Each figure that is claimed anywhere, as a command that prints it: `python -m benchmarks.NAME --help`."""
