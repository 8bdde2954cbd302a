"""Benchmarks of tritonmoe: time over floor, stages, competitors, traffic, cold start (docs/benchmarks.md)."""
