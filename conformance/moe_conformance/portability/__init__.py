"""Portability as evidence: one source for every target, shown by data.

Everything here but `recording` and `choices` runs without torch: the matrix of targets is compiled by several versions
of Triton, in environments that hold Triton alone.
"""
