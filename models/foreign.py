"""Errors of other projects' code, when it reads a file that is broken or hostile.

Decoders, template engines and config classes raise almost anything. What they raise is turned into one ValueError that names
the file. Only their calls are guarded, so that errors of this project are not hidden. Where a library has exceptions of its
own besides these, they are named where it is called.
"""

from __future__ import annotations

import struct

ERRORS = (
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  OSError,
  RuntimeError,
  struct.error,
  SyntaxError,
  TypeError,
  ValueError,
)


def reason(error: Exception) -> str:
  """An error as one short line."""
  text = " ".join(str(error).split())
  return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
