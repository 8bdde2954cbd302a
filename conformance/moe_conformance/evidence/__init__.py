"""What Records show: comparisons of platforms, and certificates. Records go in; no kernel is run here."""
