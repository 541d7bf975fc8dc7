"""Prompts of random words and pictures of noise, for measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.decoder import DecoderConfig

_MOST_WORDS = 8000


def prompts(
  text: DecoderConfig,
  image_token_id: int,
  counts: Sequence[int],
  text_tokens: int,
  rng: np.random.Generator | None,
  before: Sequence[int] = (),
  after: Sequence[int] = (),
  special: Sequence[int] = (),
) -> dict[str, np.ndarray]:
  """Prompts of random words around one picture each.

  Args:
    text: the decoder.
    image_token_id: the placeholder.
    counts: visual tokens of each prompt.
    text_tokens: of each prompt, those of `before` and `after` included.
    rng: source of the words; None: equal words.
    before: tokens directly before the picture.
    after: tokens directly after it.
    special: more tokens that are no words.

  Returns:
    `input_ids` and `attention_mask`, [B, S] each.
  """
  ids = np.setdiff1d(np.arange(min(text.vocab_size, _MOST_WORDS)), [image_token_id, *before, *after, *special])
  words = lambda count: [int(ids[0])] * count if rng is None else rng.choice(ids, count).tolist()
  first = text_tokens // 2
  rows = [
    words(first - len(before)) + [*before] + [image_token_id] * count + [*after] + words(text_tokens - first - len(after))
    for count in counts
  ]
  length = max(map(len, rows))
  return {
    "input_ids": np.asarray([row + [0] * (length - len(row)) for row in rows]),
    "attention_mask": np.asarray([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
  }


def noise(shape: tuple[int, ...], rng: np.random.Generator | None) -> np.ndarray:
  """Float32 pixels: normal noise, or zeros without a source of it."""
  return np.zeros(shape, np.float32) if rng is None else rng.standard_normal(shape, np.float32)
