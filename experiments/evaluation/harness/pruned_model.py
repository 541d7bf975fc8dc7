"""A pruned model as evaluation harnesses want it: questions in, texts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import command
from hawk_jax import importance
from models import generate
from models import load_model
from models import load_processor
from models import video


class PrunedModel:
  """A checkpoint and how to prune it."""

  def __init__(self, model: str, *, head_importance: str = "uniform", keep_ratio: float | None = None,
               selector: str = "hawk", normalization: str = "l2", max_new_tokens: int = 64,
               min_pixels: int | None = None, max_pixels: int | None = None, fps: float = 2.0, max_frames: int = 64,
               dtype: str | None = None):
    """Loads a checkpoint.

    Args:
      model: its directory or hub id.
      head_importance: preset:NAME, uniform, or a JSON file.
      keep_ratio: share of the visual tokens to keep; None: all.
      selector: the rule that picks them.
      normalization: of each head's scores.
      max_new_tokens: of an answer, where the harness does not say.
      min_pixels: smaller pictures are scaled up to this; None: as the checkpoint says.
      max_pixels: larger ones are scaled down to this; None: as the checkpoint says.
      fps: frames a second that are taken from videos.
      max_frames: most frames of a video.
      dtype: by default float32 on CPU, bfloat16 elsewhere.
    """
    self._model, self._params = load_model(model, dtype=dtype or command.default_dtype())
    self._processor = load_processor(model)
    self._pruning = dict(head_importance=importance.load(head_importance, self._model.config.text.num_attention_heads),
                         keep_ratio=keep_ratio, selector=selector, normalization=normalization)
    self._pixels = dict(min_pixels=min_pixels, max_pixels=max_pixels)
    self._frames = dict(fps=fps, max_frames=max_frames)
    self._max_new_tokens = max_new_tokens

  def answer(self, questions: Sequence[Sequence[Mapping[str, Any]]], max_new_tokens: int | None = None) -> list[str]:
    """Answers a batch of questions, greedily.

    Args:
      questions: each a list of {"type": "text", "image" or "video", "value": ...} in the order they are shown; a picture is
        whatever a processor takes, a video is a path.
      max_new_tokens: of an answer.
    """
    values = lambda parts, kind: [part["value"] for part in parts if part["type"] == kind]
    content = lambda part: {"type": "text", "text": part["value"]} if part["type"] == "text" else {"type": part["type"]}
    arrays = self._processor(
        images=[values(parts, "image") for parts in questions],
        videos=[[video.read(path, **self._frames) for path in values(parts, "video")] for parts in questions],
        messages=[[{"role": "user", "content": list(map(content, parts))}] for parts in questions], **self._pixels)
    out = generate(self._model, self._params, self._model.pack(**arrays), **self._pruning,
                   max_new_tokens=max_new_tokens or self._max_new_tokens, eos_token_ids=self._processor.eos_token_ids)
    return self._processor.decode(out.tokens, out.lengths)
