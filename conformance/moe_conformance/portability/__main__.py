"""python -m moe_conformance.portability: the commands that need no torch, without the rest of the suite."""

from .command import main

main(prog_name="python -m moe_conformance.portability")
