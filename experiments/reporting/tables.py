"""Tables in Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import csv as csv_lib
import io
from typing import Any


def table(columns: Sequence[str], rows: Iterable[Iterable[Any]], left: int = 1) -> list[str]:
  """Lines of a Markdown table.

  With columns ["", "seconds"] and rows [["prefill", 0.5]]:

    | | seconds |
    |---|---:|
    | prefill | 0.5 |

  Args:
    columns: heading of each column.
    rows: cells of each row, which `str` turns into text.
    left: number of columns, from the first, that are aligned left, as names are; the others are aligned right.
  """
  line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
  alignment = "|" + "---|" * left + "---:|" * (len(columns) - left)
  return [line(columns).replace("|  |", "| |"), alignment, *map(line, rows)]


def csv(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
  """A header, and one line per row.

  Args:
    columns: heading of each column.
    rows: cells of each row.
  """
  content = io.StringIO()
  csv_lib.writer(content, lineterminator="\n").writerows([columns, *rows])
  return content.getvalue()
