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
