"""Figures: which tokens were kept, curves and bars. They leave the backend of pyplot, which notebooks set, alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import io
import pathlib
import textwrap
from typing import Any
import warnings

import matplotlib
from matplotlib import colors
from matplotlib import patches
from matplotlib.figure import Figure
import numpy as np
from PIL import Image

from experiments.running import files
from models.vision_language import View

# For functions that draw: questions and names that hold $ are no formulas.
plain_text = matplotlib.rc_context({"text.parse_math": False})
DIMMED = 0.22
_MOST_VIEWS = 24  # of one figure
_TITLE_WIDTH = 100  # characters
# Curves of a panel.
MOST = 8
# Colour, marker and line of a method: Okabe and Ito's colours, which can be told apart in any colour vision; then the same
# with other markers and lines.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
STYLES = [
  (color, marker, line)
  for line, markers in (("-", "os^DvPX*"), ("--", "<>hpHd18"), ("-.", "s^DvPX*o"))
  for color, marker in zip(_COLORS, markers)
]


def _wrapped(text: str) -> str:
  """A title in lines that fit, of which the first and last four remain; Matplotlib's own wrapping takes $ for formulas."""
  lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _TITLE_WIDTH)]
  return "\n".join(lines if len(lines) < 9 else [*lines[:4], "…", *lines[-4:]])


@plain_text
def kept_tokens(
  path: pathlib.Path,
  pictures: Sequence[Image.Image],
  views: Sequence[View],
  scores: np.ndarray,
  kept: np.ndarray,
  title: str,
  rule: str,
  scored: str,
  left_by: np.ndarray | None = None,
) -> None:
  """Draws each view of each picture with its pruned tokens dimmed, beside a map of its scores.

  Of more than 24 views, such as those of a long video, 24 are drawn, evenly spread.

  Args:
    path: PNG to write.
    pictures: of one prompt.
    views: where the prompt's visual tokens are on the pictures; see `models.vision_language.Inputs`.
    scores: [V] fused scores of the prompt's visual tokens.
    kept: [V] bool, True on tokens that were kept.
    title: of the figure.
    rule: by which the tokens were kept.
    scored: what the scores are, in words.
    left_by: [stages, V] bool, tokens that each stage left; removed tokens have the colour of the stage that removed them.
  """
  ends = np.cumsum([view.count for view in views])
  grids = [(view, slice(end - view.count, end)) for view, end in zip(views, ends) if view.columns]
  drawn = [grids[at] for at in np.linspace(0, len(grids) - 1, min(len(grids), _MOST_VIEWS)).round().astype(int)]
  if len(drawn) < len(grids):
    title += f"\n{len(drawn)} of {len(grids)} views"
  sizes = [pictures[view.picture].size for view, _ in drawn]
  heights = [min(0.5 + 4.4 * height / width, 9) for width, height in sizes]
  figure = Figure(figsize=(10, 0.8 + sum(heights)), layout="constrained")
  axes = figure.subplots(len(drawn), 2, squeeze=False, height_ratios=heights)
  limits = dict(vmin=float(scores.min()), vmax=float(scores.max()))
  for (left, right), (view, here) in zip(axes, drawn):
    picture, columns, rows = pictures[view.picture], view.columns, view.rows
    mask = kept[here].reshape(rows, -1)[:, :columns]
    # At most 1,600 pixels wide, and no token smaller than 4 pixels.
    width = max(min(picture.width, 1600), 4 * columns)
    picture = picture.resize((width, max(4 * rows, round(width * picture.height / picture.width))))
    pixels = np.asarray(picture, np.float32)
    tokens = Image.fromarray(mask.astype(np.uint8)).resize(picture.size, Image.Resampling.NEAREST)
    light = np.asarray(tokens, np.float32)[..., None]
    shown = pixels * light + (1 - light) * (255 - DIMMED * (255 - pixels))
    for number, removed in enumerate([] if left_by is None else ~left_by[:, here]):
      removed = removed & (True if not number else left_by[number - 1, here])
      where = Image.fromarray(removed.reshape(rows, -1)[:, :columns].astype(np.uint8))
      tinted = np.asarray(where.resize(picture.size, Image.Resampling.NEAREST), np.float32)[..., None] * 0.25
      shown = shown * (1 - tinted) + tinted * 255 * np.asarray(colors.to_rgb(_COLORS[number % len(_COLORS)]))
    left.imshow(shown.astype(np.uint8))
    left.set_title(f"kept {kept[here].sum()} of {view.count} visual tokens by {rule}", fontsize=10)
    for row, column in np.argwhere(mask):
      left.add_patch(
        patches.Rectangle(
          (column * picture.width / columns - 0.5, row * picture.height / rows - 0.5),
          picture.width / columns,
          picture.height / rows,
          fill=False,
          edgecolor="#e8590c",
          linewidth=0.8,
        )
      )
    image = right.imshow(
      scores[here].reshape(rows, -1)[:, :columns], cmap="viridis", extent=left.get_images()[0].get_extent(), **limits
    )
    right.set_title(scored, fontsize=10)
    figure.colorbar(image, ax=right, shrink=0.8)
    left.set_axis_off()
    right.set_axis_off()
  figure.suptitle(_wrapped(title), fontsize=12)
  files.write(path, encode(figure))


@dataclasses.dataclass(frozen=True)
class Panel:
  """Curves over the share of visual tokens kept.

  Attributes:
    title: of the panel.
    curves: by the name of a method, its points: tokens kept in %, value, and the bounds of the value's interval, which are
      equal where there is none.
    level: a value to compare with, such as the unpruned model's, or None.
  """

  title: str
  curves: Mapping[str, Sequence[tuple[float, float, float, float]]]
  level: float | None = None


@plain_text
def curves(panels: Sequence[Panel], y_label: str) -> Figure:
  """Draws panels with a common legend outside of them; a method has one colour and one marker in all panels.

  Raises:
    ValueError: a panel has more curves, or the figure more methods, than can be told apart.
  """
  names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
  if max(len(panel.curves) for panel in panels) > MOST or len(names) > len(STYLES):
    raise ValueError(f"panels: at most {MOST} curves each and {len(STYLES)} methods in all, got {len(names)} methods")
  columns = min(3, len(panels))
  rows = -(-len(panels) // columns)
  height = max(3.6 * rows, 0.21 * (len(names) + 2))  # the legend has a line for each method
  figure = Figure(figsize=(4.2 * columns + 2, height), layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat[len(panels) :]:
    axes.set_axis_off()
  handles: dict[str, Any] = {}
  for axes, panel in zip(grid.flat, panels):
    if panel.level is not None:
      handles["all tokens"] = axes.axhline(panel.level, color="0.6", linestyle=":", linewidth=1.2)
    for name, points in panel.curves.items():
      kept, values, low, high = np.asarray(points, float).T
      color, marker, line = STYLES[names.index(name)]
      errors = np.maximum([values - low, high - values], 0)
      handles[name] = axes.errorbar(
        kept,
        values,
        errors,
        color=color,
        marker=marker,
        linestyle=line,
        markersize=5,
        linewidth=1.4,
        capsize=2,
        elinewidth=0.8,
      )
    shares = sorted({point[0] for points in panel.curves.values() for point in points})
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.set_xticks([], minor=True)
    axes.set(title=panel.title, xlabel="visual tokens kept, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
  for axes in grid[:, 0]:
    axes.set_ylabel(y_label)
  figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
  return figure


@plain_text
def bars(series: Mapping[str, np.ndarray], x_label: str, y_label: str) -> Figure:
  """Draws groups of bars, numbered from 0, under a legend above them.

  Args:
    series: by name, one value per group.
    x_label: of the axis.
    y_label: of the axis.
  """
  count, width = len(next(iter(series.values()))), 0.8 / len(series)
  figure = Figure(figsize=(max(7, 0.16 * count * len(series)), 4.2), layout="constrained")
  axes = figure.subplots()
  for number, (name, values) in enumerate(series.items()):
    place = np.arange(count) + (number - (len(series) - 1) / 2) * width
    axes.bar(place, values, width, label=name, color=STYLES[number % len(STYLES)][0])
  axes.set(xlabel=x_label, ylabel=y_label, xticks=np.arange(count))
  axes.axhline(0, color="black", linewidth=0.6)
  axes.spines[["top", "right"]].set_visible(False)
  figure.legend(loc="outside upper center", ncols=min(4, len(series)), frameon=False, fontsize=9)
  return figure


def best(found: Mapping[str, Any], most: int = MOST, always: Sequence[str] = ()) -> dict[str, Any]:
  """The curves with the largest mean values, and those that are always shown, in the order of `found`."""
  ranked = sorted(found, key=lambda name: -np.mean([point[1] for point in found[name]]))
  names = [*(name for name in always if name in found), *(name for name in ranked if name not in always)][:most]
  return {name: points for name, points in found.items() if name in names}


@plain_text
def encode(figure: Figure, suffix: str = ".png") -> bytes:
  """A figure as the content of a .png or .pdf file, without a date, so that the same figure has the same bytes."""
  buffer = io.BytesIO()
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box takes its place
    figure.savefig(buffer, format=suffix[1:], dpi=160, metadata={"CreationDate": None} if suffix == ".pdf" else {})
  return buffer.getvalue()


def save(path: pathlib.Path, figure: Figure) -> None:
  """Writes a figure as PNG, and as PDF beside it."""
  for suffix in (".png", ".pdf"):
    files.write(path.with_suffix(suffix), encode(figure, suffix))
