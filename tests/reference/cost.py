"""What the tests of a port's FLOPs share: a decoder that costs next to nothing, and XLA's own count."""

from __future__ import annotations

import jax
import numpy as np

from models.checkpoints import params as params_lib
from models.decoder import DecoderConfig


def small_decoder(hidden: int) -> DecoderConfig:
  """A decoder of one layer and one head."""
  return DecoderConfig.sized(hidden, 8, 1, 1, 1, head_dim=8, vocab_size=8, max_position_embeddings=128)


def counted_by_xla(model, tiles: int) -> float:
  """FLOPs of encoding so many tiles. XLA also counts norms, softmax and activations: a few operations per element."""
  pixels = np.zeros((tiles, *model.config.vision.tile_shape), np.float32)
  encode = jax.jit(lambda params, pixels: model.apply({"params": params}, pixels, method="encode"))
  return encode.lower(params_lib.abstract(model), pixels).cost_analysis()["flops"]
