"""Benchmarks of tritonmoe: time over floor, stages, competitors, traffic, cold start, the suite itself (docs/benchmarks.md)."""
