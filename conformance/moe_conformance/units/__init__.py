"""Matrix units: a table of published models, and a probe that measures the unit at hand."""
