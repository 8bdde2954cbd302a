"""What instructions do, one file for each class. Importing this package fills the table in `.table`."""

from . import (
    compare,
    control,
    conversion,
    crosslane,
    dots,
    dual,
    global_memory,
    halves,
    lds_access,
    matrix,
    packed,
    scalar,
    vector,
)

__all__ = [
    "compare",
    "control",
    "conversion",
    "crosslane",
    "dots",
    "dual",
    "global_memory",
    "halves",
    "lds_access",
    "matrix",
    "packed",
    "scalar",
    "vector",
]
