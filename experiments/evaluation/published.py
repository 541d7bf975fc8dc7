"""Scores that others published for Qwen2.5-VL-7B and InternVL3-8B, to show beside ours. We measured none of them.

Labels name the source. "paper": HAWK (arXiv 2604.07812), from its text, from READMEs of its authors, and from reading notes.
"authors": a later run of their code by themselves, from the README of github.com/peppery77/HAWK at 3af2071. Of the scores at
1008 x 1008 pixels, and of CDPruner's, only a plot was at hand; no score is read off it.
"""

from __future__ import annotations

from collections.abc import Collection
import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
  """A row of a published table.

  Attributes:
    label: of the row in our tables.
    pruned: share of the visual tokens that is removed.
    scores: by a benchmark's title.
    share: mean share of the unpruned scores, in percent, over the benchmarks of the source; None: not printed there.
  """

  label: str
  pruned: float
  scores: dict[str, float]
  share: float | None


def _row(label: str, pruned: float, share: float | None, scores: str = "") -> Published:
  """A row; scores are those of HallBench, MME, TextVQA, ChartQA and RealWorldQA, with a dash where none is printed."""
  titles = ("HallBench", "MME", "TextVQA", "ChartQA", "RealWorldQA")
  return Published(label, pruned, {title: float(x) for title, x in zip(titles, scores.split()) if x != "-"}, share)


_MODELS = {
  # hidden size, layers, heads of the decoder
  ("qwen2_5_vl", 3584, 28, 28): {
    "native": (
      _row("paper: unpruned", 0.0, 100.0, "46.5 2315 85.2 86.2 67.7"),
      _row("paper: HAWK", 0.6, 99.6, "46.5 2313 85.0 83.6 67.6"),
      _row("authors: HAWK", 0.6, None, "- - 85.0 85.16 67.712"),
      _row("paper: DivPrune", 0.6, 96.9, "45.8 2274 82.7 80.6"),
      _row("paper: FastV", 0.6, 96.1, "42.5 2283 84.1 82.5"),
      _row("paper: HAWK", 0.8, 96.2, "42.8 2311 83.0 76.8 65.0"),
      _row("authors: HAWK", 0.8, None, "- - 83.156 79.04 62.353"),
      _row("paper: DivPrune", 0.8, 91.6, "39.0 2196 76.8 69.0"),
      _row("paper: FastV", 0.8, 92.3, "38.2 2236 81.9 72.3"),
      _row("paper: HAWK", 0.9, 89.7, "- 2101 79.8 65.2 60.4"),
      _row("authors: HAWK", 0.9, None, "- - 79.152 67.44 60.0"),
    ),
    "fixed1008": (
      _row("paper: unpruned", 0.0, 100.0),
      _row("paper: HAWK", 0.605, 99.0),
      _row("paper: HAWK", 0.802, 96.0),
      _row("paper: HAWK", 0.901, 90.0),
    ),
    # VideoMME and WorldSense. The sources do not name the model; all other figures of theirs without a name are this one's.
    "videos": (
      _row("paper: HAWK on videos", 0.6, 98.8),
      _row("paper: HAWK on videos", 0.8, 96.6),
      _row("paper: HAWK on videos", 0.9, 93.7),
    ),
  },
  ("internvl", 3584, 28, 28): {
    "model": (
      _row("paper: unpruned", 0.0, 100.0),
      _row("paper: HAWK", 0.6, 98.2),
      _row("paper: HAWK", 0.8, 94.1),
      _row("paper: DivPrune", 0.8, 87.1),
    ),
  },
}
_VIDEOS = {"VideoMME", "WorldSense"}


def rows(model_type: str, text, resolution: str, titles: Collection[str]) -> tuple[Published, ...]:
  """The published rows for a model; none if nothing was published of it.

  Args:
    model_type: of its config.json.
    text: its `DecoderConfig`.
    resolution: a name of `plan.RESOLUTIONS`; of pictures, there are rows of Qwen2.5-VL for `native` and `fixed1008`, and of
      InternVL3 for `model`, its tiles.
    titles: of the benchmarks in the table; there are rows about pictures, and others about videos.
  """
  tables = _MODELS.get((model_type, text.hidden_size, text.num_hidden_layers, text.num_attention_heads), {})
  pictures, videos = set(titles) - _VIDEOS, set(titles) & _VIDEOS
  return (tables.get(resolution, ()) if pictures else ()) + (tables.get("videos", ()) if videos else ())
