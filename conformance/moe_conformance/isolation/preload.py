"""Imported once by the server that judging processes are forked from; a fork then needs milliseconds."""

import importlib
import importlib.util

from .. import interpreter
from ..registry import all_properties
from . import child

__all__ = ["child"]

all_properties()
if importlib.util.find_spec("triton") is not None:
    importlib.import_module("triton.language")
    if interpreter.enabled():
        importlib.import_module("triton.runtime.interpreter")

# The server goes with the worker that started it, and what it forked with the server. By itself it would stay: a forked
# process holds the other end of the pipe by which the server knows that it is needed.
child.die_with_parent()
