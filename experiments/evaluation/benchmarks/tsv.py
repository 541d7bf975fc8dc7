"""Benchmark files in VLMEvalKit's layout: one TSV per benchmark, with pictures in it as base64, or in files beside it.

A file is scanned once, and its pictures are not kept: of each row, its text, the sizes of its pictures and its place in the
file stay in memory. `Table.pictures` reads the pictures again, from any thread.
"""

from __future__ import annotations

import ast
import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import csv
import dataclasses
import os
import pathlib
import string
import sys

from PIL import Image

from models.inputs import pictures
from models.inputs import video as video_lib

LETTERS = string.ascii_uppercase
_NEEDED = ("index", "question", "answer")
_PICTURES = ("image", "image_path")
_VIDEOS = ("video_path", "video")
_REFERENCE = 64  # an `image` cell of at most so many characters is the index of the row whose picture it shares


class RowError(ValueError):
  """Something is wrong with one row; the message names file, row and column."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A question.

  Attributes:
    number: of the row in the file; the first row below the header is 1.
    index: the file's own name for the row.
    fields: every column except `image`, as text; empty where the file has nothing.
    options: of multiple choice, letter to text.
    sizes: (width, height) of its pictures in pixels; for a video, the height is that of all its frames together.
    source: byte of the file at which the record with the row's pictures begins.
    problem: why the row cannot be asked, or None.
  """

  number: int
  index: str
  fields: Mapping[str, str]
  options: Mapping[str, str]
  sizes: tuple[tuple[int, int], ...]
  source: int
  problem: str | None

  @property
  def answer(self) -> str:
    """The right answer."""
    return self.fields["answer"].strip()

  @property
  def answers(self) -> list[str]:
    """All right answers, where the cell may hold a list of them."""
    return as_list(self.fields["answer"])


@dataclasses.dataclass(frozen=True)
class Table:
  """A file.

  Attributes:
    path: of the file.
    columns: its header.
    rows: its questions, in the order of the file.
    outside: whether cells may name files outside the directory of the file.
    skipped: number of rows that are left out because they have no picture while others have one, as VLMEvalKit does.
  """

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: tuple[Row, ...]
  skipped: int
  outside: bool = False

  @property
  def name(self) -> str:
    """The file's name without its suffix, by which the benchmark is found."""
    return self.path.stem

  def pictures(self, row: Row) -> list[Image.Image]:
    """A row's pictures, decoded to RGB.

    Raises:
      RowError: one cannot be read.
    """
    column = self.column(row, _PICTURES)
    if column is None:
      return []
    _, cells = next(_records(self.path, row.source, row.number))
    cell = cells[self.columns.index(column)]
    with self._named(row, column):
      sources = [self._file(value, column) if column == "image_path" else _decode(value) for value in as_list(cell)]
      return [pictures.open_picture(source) for source in sources]

  def videos(self, row: Row, read: Callable[[pathlib.Path], video_lib.Video]) -> list[video_lib.Video]:
    """A row's video; empty if it has none.

    Args:
      row: of the table.
      read: a file's path to its sampled frames.

    Raises:
      RowError: it cannot be read.
    """
    column = self.column(row, _VIDEOS)
    if column is None:
      return []
    with self._named(row, column):
      return [read(self._file(row.fields[column], column))]

  def column(self, row: Row, among: Sequence[str] = (*_PICTURES, *_VIDEOS)) -> str | None:
    """The first column in which a row has pictures or a video."""
    return next((name for name in among if name in self.columns and (name == "image" or row.fields[name])), None)

  def cells(self, column: str) -> list[str]:
    """A column, as text; empty where the file has nothing."""
    return [row.fields.get(column, "") for row in self.rows]

  def describe(self, row: Row, column: str, problem) -> str:
    """'file: row 3 (index 7), column image: problem'."""
    return _describe(self.path, row.number, row.index, column, problem)

  def _file(self, value, column):
    return find_file(self.path, value, column, self.outside)

  @contextlib.contextmanager
  def _named(self, row, column):
    """A context that raises RowError for anything a decoder cannot read."""
    try:
      with _decoding():
        yield
    except ValueError as error:
      raise RowError(self.describe(row, column, error)) from error


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
  """A context in which every failure of a decoder is a ValueError: Pillow and FFmpeg raise exceptions of many kinds."""
  try:
    yield
  except ValueError:
    raise
  except Exception as error:
    raise ValueError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def _describe(path, number, index, column, problem) -> str:
  return f"{path}: row {number} (index {index}), column {column}: {problem}"


def as_list(cell: str) -> list[str]:
  """A cell that holds one value, or several written as a Python list."""
  if len(cell) > 1 and cell[0] == "[" and cell[-1] == "]":
    try:
      values = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      return [cell]
    if isinstance(values, list) and values:
      return [str(value) for value in values]
  return [cell]


def read(path: str, *, limit: int | None = None, outside: bool = False) -> Table:
  """Scans a file.

  Args:
    path: of a TSV with a header. Pictures are in `image` (base64, or the index of the row that has the picture) or in
      `image_path` (files beside the TSV), videos in `video_path` or `video`; a Python list in a cell holds several.
    limit: only the first so many rows.
    outside: whether cells may name files outside the directory of the TSV.

  Raises:
    ValueError: no such file, no rows, missing columns, or two rows with one index.
  """
  path = pathlib.Path(path)
  if not os.path.isfile(path):  # False for names that are too long, too
    raise ValueError(f"data: there is no file {path}")
  records = _records(path)
  _, header = next(records, (0, []))
  if not header:
    raise ValueError(f"data: {path} is empty, its first line must name the columns")
  missing = [name for name in _NEEDED if name not in header]
  if missing:
    raise ValueError(
      f"data: {path}, row 0 (the header): lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
      f"it has {', '.join(header)}"
    )
  if twice := sorted({name for name in header if header.count(name) > 1}):
    raise ValueError(f"data: {path}, row 0 (the header): names the column {twice[0]} twice")
  columns, seen, drafts, pictured = tuple(header), {}, [], "image" in header
  for number, (offset, cells) in enumerate(records, 1):
    if len(cells) != len(columns):
      raise ValueError(f"data: {path}: row {number} has {len(cells)} cells, the header has {len(columns)} columns")
    row = dict(zip(columns, cells))
    index = row["index"].strip()
    if not index:
      raise ValueError(f"data: {path}: row {number}, column index: is empty")
    if index in seen:
      raise ValueError(f"data: {path}: rows {seen[index][0]} and {number}, column index: both have {index}")
    seen[index] = number, offset, len(row.get("image", "")) > _REFERENCE or not pictured
    if limit is None or len(drafts) < limit:
      drafts.append((number, index, offset, row if not pictured or len(row["image"]) <= _REFERENCE else _measured(row)))
  rows = tuple(_row(path, columns, seen, outside, *draft) for draft in drafts if not pictured or draft[3]["image"])
  if not rows:
    raise ValueError(f"data: {path} has no row{' with a picture' if drafts else ''} below its header")
  return Table(path, columns, rows, len(drafts) - len(rows), outside)


def _measured(row):
  """A row with the sizes of its pictures in place of the pictures, or with the error that they cause."""
  try:
    return {**row, "image": [_size(value) for value in as_list(row["image"])]}
  except ValueError as error:
    return {**row, "image": error}


def _row(path, columns, seen, outside, number, index, offset, row) -> Row:
  options = {letter: row[letter].strip() for letter in LETTERS if row.get(letter, "").strip()}
  if not options and row.get("candidates"):
    options = dict(zip(LETTERS, as_list(row["candidates"])))
  fields = {name: row[name] for name in columns if name != "image"}
  sizes, problem = (), None

  def refuse(column, message):
    nonlocal problem
    problem = problem or _describe(path, number, index, column, message)

  try:
    if "image" in columns and isinstance(row["image"], str):
      target = row["image"].strip()
      if target not in seen or not seen[target][2]:
        raise ValueError(f"{target!r} is neither base64 of a picture nor the index of a row that has one")
      number_there, offset, _ = seen[target]
      _, cells = next(_records(path, offset, number_there))
      row = _measured(dict(zip(columns, cells)))
    if "image" in columns:
      if isinstance(row["image"], ValueError):
        raise row["image"]
      sizes = tuple(row["image"])
    elif row.get("image_path"):
      sizes = tuple(_size(find_file(path, value, "image_path", outside)) for value in as_list(row["image_path"]))
  except ValueError as error:
    refuse("image" if "image" in columns else "image_path", error)
  for column in _VIDEOS:
    if row.get(column) and problem is None and not sizes:
      try:
        with _decoding():
          info = video_lib.probe(find_file(path, row[column], column, outside))
        sizes = ((info.width, info.height * info.frames),)
      except ValueError as error:
        refuse(column, error)
  answer = fields.get("answer", "").strip()
  if not answer:
    refuse("answer", "is empty")
  elif options and answer not in options:
    refuse("answer", f"is {answer!r}, the row's options are {', '.join(options)}")
  return Row(number, index, fields, options, sizes, offset, problem)


def _records(path, start: int = 0, number: int = 0) -> Iterator[tuple[int, list[str]]]:
  """Every record, and the byte at which it begins; a quoted cell may hold newlines."""
  csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
  with open(path, "rb") as file:
    file.seek(start)
    began = position = start

    def lines():
      nonlocal position
      for line in file:
        first, position = position, position + len(line)
        yield line.decode("utf-8-sig" if first == 0 else "utf-8")

    records = csv.reader(lines(), delimiter="\t")
    while True:
      try:
        cells = next(records, None)
      except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"data: {path}: row {number} cannot be read ({error})") from error
      if cells is None:
        return
      if cells:
        yield began, cells
        number += 1
      began = position


def _decode(value: str) -> bytes:
  try:
    return base64.b64decode("".join(value.split()), validate=True)
  except (binascii.Error, ValueError) as error:
    raise ValueError(f"is not base64 ({error})") from error


@_decoding()
def _size(source: str | pathlib.Path) -> tuple[int, int]:
  """Width and height of a base64 picture or a file, from its first bytes where they are enough."""
  if isinstance(source, pathlib.Path):
    return pictures.picture_size(source)
  try:
    return pictures.picture_size(_decode(source[:65_536]))
  except ValueError:
    return pictures.open_picture(_decode(source)).size


def find_file(path: pathlib.Path, value: str, column: str, outside: bool) -> pathlib.Path:
  """A file that a cell names: relative to the TSV, or in the folders where VLMEvalKit keeps such files.

  Args:
    path: of the TSV.
    value: of the cell.
    column: of the cell.
    outside: whether the file may be outside the directory of the TSV.

  Raises:
    ValueError: there is no such file, or it is outside.
  """
  value = value.strip()
  names = [value] if column != "video" or pathlib.Path(value).suffix else [value + end for end in (".mp4", ".webm", ".avi")]
  folders = [path.parent, path.parent / "images" / path.stem, path.parent / "video", path.parent / "videos"]
  for name in names:
    for folder in folders:
      if os.path.isfile(folder / name):
        if not outside and not (folder / name).resolve().is_relative_to(path.parent.resolve()):
          raise ValueError(f"{name} is outside the directory of {path.name}; --allow_outside_paths permits it")
        return folder / name
  raise ValueError(f"there is no file {names[0]} beside {path.name}")
