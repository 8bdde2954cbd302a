"""The properties: one module for each part of the contract. Each reads: run a stage, judge."""
