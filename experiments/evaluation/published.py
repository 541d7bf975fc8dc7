"""Scores that the paper (HAWK, arXiv 2604.07812) prints for Qwen2.5-VL-7B, to show beside ours. We measured none of them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
  """A row of the paper's table.

  Attributes:
    label: of the row in our tables.
    pruned: share of the visual tokens that is removed.
    scores: by a benchmark's title.
    share: mean share of the unpruned scores, in percent, over the paper's benchmarks.
  """

  label: str
  pruned: float
  scores: dict[str, float]
  share: float


_MODELS = {
  # hidden size, layers, heads of the decoder
  ("qwen2_5_vl", 3584, 28, 28): {
    "native": (
      Published(
        "paper: unpruned",
        0.0,
        {"HallBench": 46.5, "MME": 2315, "TextVQA": 85.2, "ChartQA": 86.2, "RealWorldQA": 67.7},
        100.0,
      ),
      Published("paper: HAWK", 0.6, {}, 99.6),
      Published(
        "paper: HAWK", 0.8, {"HallBench": 42.8, "MME": 2311, "TextVQA": 83.0, "ChartQA": 76.8, "RealWorldQA": 65.0}, 96.2
      ),
      Published("paper: HAWK", 0.9, {}, 89.7),
    ),
    "fixed1008": (
      Published("paper: unpruned", 0.0, {}, 100.0),
      Published("paper: HAWK", 0.605, {}, 99.0),
      Published("paper: HAWK", 0.802, {}, 96.0),
      Published("paper: HAWK", 0.901, {}, 90.0),
    ),
  },
}


def rows(model_type: str, text, resolution: str) -> tuple[Published, ...]:
  """The paper's rows for a model; none if the model is not in the paper.

  Args:
    model_type: of its config.json.
    text: its `DecoderConfig`.
    resolution: a name of `plan.RESOLUTIONS`; the paper has rows for `native` and `fixed1008`.
  """
  key = (model_type, text.hidden_size, text.num_hidden_layers, text.num_attention_heads)
  return _MODELS.get(key, {}).get(resolution, ())
