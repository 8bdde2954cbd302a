"""Conformance suite for Mixture-of-Experts GPU kernels: contract, oracle, properties, evidence."""

__version__ = "0.1.0"
