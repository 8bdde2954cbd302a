"""The stages of the forward: for each a kernel file (Triton alone) and, next to it, the launcher that calls it."""
