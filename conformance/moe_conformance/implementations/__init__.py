"""Implementations shipped with the suite. Each module imports what it adapts; nothing else does."""
