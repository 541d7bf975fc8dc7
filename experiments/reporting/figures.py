"""Figures: which tokens were kept, curves and bars. They leave the backend of pyplot, which notebooks set, alone."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib

from matplotlib import patches
from matplotlib.figure import Figure
import numpy as np
from PIL import Image

from models.vision_language import View

DIMMED = 0.22
_MOST_VIEWS = 24  # of one figure
_COLORS = 10  # in matplotlib's cycle


def kept_tokens(
  path: pathlib.Path,
  pictures: Sequence[Image.Image],
  views: Sequence[View],
  scores: np.ndarray,
  kept: np.ndarray,
  title: str,
  rule: str,
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
    rule: by which the tokens were kept, and what the scores are: "rule, scores".
  """
  selector, _, scored = rule.partition(", ")
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
    left.imshow(shown.astype(np.uint8))
    left.set_title(f"kept {kept[here].sum()} of {view.count} visual tokens by {selector}", fontsize=10)
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
  figure.suptitle(title, fontsize=12, wrap=True)
  figure.savefig(path, dpi=110)


def lines(path: pathlib.Path, x: Sequence[float], series: dict[str, Sequence[float]], x_label: str, y_label: str) -> None:
  """Draws curves over one x axis; both axes begin at zero, and the legend lists curves from top to bottom at the smallest x.

  Args:
    path: PNG to write.
    x: values on the x axis.
    series: by name, one value per x.
    x_label: of the axis.
    y_label: of the axis.
  """
  figure = Figure(figsize=(9 if len(series) > _COLORS else 7, 4.5), layout="constrained")
  axes = figure.subplots()
  left = int(np.argmin(x))
  for number, (name, values) in enumerate(sorted(series.items(), key=lambda item: -item[1][left])):
    axes.plot(
      x,
      values,
      color=f"C{number % _COLORS}",
      linestyle=("-", "--", ":")[number // _COLORS % 3],
      marker="o",
      markersize=4,
      label=name,
    )
  axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, None), ylim=(0, None))
  axes.grid(alpha=0.3)
  if len(series) > _COLORS:
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
  else:
    axes.legend()
  figure.savefig(path, dpi=110)


def bars(path: pathlib.Path, series: dict[str, np.ndarray], x_label: str, y_label: str) -> None:
  """Draws groups of bars; the groups are numbered from 0.

  Args:
    path: PNG to write.
    series: by name, one value per group.
    x_label: of the axis.
    y_label: of the axis.
  """
  count = len(next(iter(series.values())))
  figure = Figure(figsize=(max(7, 0.16 * count * len(series)), 4.5), layout="constrained")
  axes = figure.subplots()
  for number, (name, values) in enumerate(series.items()):
    axes.bar(np.arange(count) + (number - (len(series) - 1) / 2) * 0.8 / len(series), values, 0.8 / len(series), label=name)
  axes.set(xlabel=x_label, ylabel=y_label, xticks=np.arange(count))
  axes.axhline(0, color="black", linewidth=0.6)
  axes.legend(fontsize=8)
  figure.savefig(path, dpi=110)
