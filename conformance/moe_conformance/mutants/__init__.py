"""The mutation gate: known defects planted in the shipped kernels, one at a time, and whether the suite sees each.

`catalogue` reads the defects (data/mutants/*.toml), `build` plants one in a copy of the kernels, `hunt` looks for a
problem that shows it, `pool` runs hunts in child processes, `matrix` holds the result, `command` is the command line.
"""
