"""A problem is judged in a process of its own kind, so that what kills or hangs it costs that problem and no more."""
