"""What instructions do, one file for each class. Importing this package fills the table in `.table`."""

from . import compare, control, crosslane, global_memory, lds_access, matrix, scalar, vector  # noqa: F401
