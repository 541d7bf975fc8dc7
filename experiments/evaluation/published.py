"""Scores that the paper (HAWK, arXiv 2604.07812) prints for Qwen2.5-VL-7B and InternVL3-8B, to show beside ours. We measured
none of them."""

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
      Published(
        "paper: HAWK", 0.6, {"HallBench": 46.5, "MME": 2313, "TextVQA": 85.0, "ChartQA": 83.6, "RealWorldQA": 67.6}, 99.6
      ),
      Published("paper: DivPrune", 0.6, {}, 96.9),
      Published("paper: FastV", 0.6, {}, 96.1),
      Published(
        "paper: HAWK", 0.8, {"HallBench": 42.8, "MME": 2311, "TextVQA": 83.0, "ChartQA": 76.8, "RealWorldQA": 65.0}, 96.2
      ),
      Published("paper: DivPrune", 0.8, {}, 91.6),
      Published("paper: FastV", 0.8, {}, 92.3),
      Published("paper: HAWK", 0.9, {"TextVQA": 79.8, "ChartQA": 65.2, "RealWorldQA": 60.4}, 89.7),
    ),
    "fixed1008": (
      Published("paper: unpruned", 0.0, {}, 100.0),
      Published("paper: HAWK", 0.605, {}, 99.0),
      Published("paper: HAWK", 0.802, {}, 96.0),
      Published("paper: HAWK", 0.901, {}, 90.0),
    ),
  },
  ("internvl", 3584, 28, 28): {
    "model": (
      Published("paper: unpruned", 0.0, {}, 100.0),
      Published("paper: HAWK", 0.6, {}, 98.2),
      Published("paper: HAWK", 0.8, {}, 94.1),
      Published("paper: DivPrune", 0.8, {}, 87.1),
    ),
  },
}


def rows(model_type: str, text, resolution: str) -> tuple[Published, ...]:
  """The paper's rows for a model; none if the model is not in the paper.

  Args:
    model_type: of its config.json.
    text: its `DecoderConfig`.
    resolution: a name of `plan.RESOLUTIONS`; for Qwen2.5-VL the paper has rows for `native` and `fixed1008`, for InternVL3
      for `model`, its tiles.
  """
  key = (model_type, text.hidden_size, text.num_hidden_layers, text.num_attention_heads)
  return _MODELS.get(key, {}).get(resolution, ())
