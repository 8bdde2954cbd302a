"""python -m benchmarks: measure, compare, report."""

from .cli import main

main(prog_name="python -m benchmarks")
