"""The decoder's work, against XLA's own count and against numbers computed by hand."""

import dataclasses
import functools

from absl.testing import absltest
from flax import traverse_util
import jax
import jax.numpy as jnp

from experiments.speed import flops
from hawk_jax import scoring
from hawk_jax.prompt import Sequence
from models import cache as cache_lib
from models.checkpoints import params as params_lib
from models.decoder import DecoderConfig
from models.llava.config import LlavaConfig
from models.llava.model import Llava
from models.llava.vision import VisionConfig

# XLA also counts norms, softmax, activations and rotary embedding. The widths below are chosen so that these are few: each
# takes a few operations per element, where a matrix product takes hundreds.
TOLERANCE = 0.02
TEXT = DecoderConfig.sized(256, 512, 3, 4, 2, vocab_size=512, max_position_embeddings=1024)
MODEL = Llava(
  LlavaConfig(
    text=TEXT,
    image_token_id=511,
    vision=VisionConfig(
      num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=1, image_size=28, feature_layers=(1,)
    ),
  )
)


def xla_flops(function, *args) -> float:
  """Floating-point operations of a function of abstract arrays, as XLA counts them before it compiles."""
  return jax.jit(function).lower(*args).cost_analysis()["flops"]


def floats(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.int32)


class FlopsTest(absltest.TestCase):
  def test_prefill_against_xla(self):
    tokens = 128

    def prefill(params, sequence):
      call = lambda module, sequence: module.logits(module.run(sequence, None).last)
      return MODEL.apply({"params": params}, sequence, method=call)

    order = integers(1, tokens)
    sequence = Sequence(
      floats(1, tokens, 256), integers(1, tokens, 1), order, jax.ShapeDtypeStruct((1, tokens), bool), slots=order
    )
    found = xla_flops(prefill, params_lib.abstract(MODEL), sequence)
    # XLA computes the whole square of causal attention in the two layers before the last, we count half of it.
    masked = 2 * 2 * tokens**2 * TEXT.num_attention_heads * TEXT.head_dim
    expected = flops.language_prefill(TEXT, tokens) + masked
    self.assertGreater(masked, 2 * TOLERANCE * expected)  # else the half would not be noticed
    self.assertBetween(found, expected, (1 + TOLERANCE) * expected)

  def test_scoring_against_xla(self):
    heads, tokens = 128, 512
    text = DecoderConfig.sized(256, 8, 1, heads, heads, head_dim=4, vocab_size=8, max_position_embeddings=1024)
    projections = scoring.Projections(query=floats(256, heads, 4), key=floats(256, heads, 4))
    found = xla_flops(
      scoring.head_scores, projections, floats(1, 8, 256), floats(1, tokens, 256), jax.ShapeDtypeStruct((1, 8), bool)
    )
    expected = flops.scoring(text, tokens)
    self.assertBetween(found, expected, (1 + TOLERANCE) * expected)

  def test_by_hand(self):
    text = DecoderConfig.sized(4, 6, 2, 2, 1, vocab_size=10, max_position_embeddings=16)
    # A layer's kernels: queries and output 4 x 4 each, keys and values 4 x 2 each, MLP 3 times 4 x 6: 120 elements.
    first = 2 * 3 * 120 + 2 * 2 * (3 * 3 / 2) * 4  # products of 3 tokens, and two of half a 3 x 3 square and width 4
    last = 2 * 2 * 16 + 2 * 120 + 2 * 2 * 3 * 4  # keys and values of 2 tokens, all products of one, which sees 3
    self.assertEqual(flops.language_prefill(text, 3), first + last + 2 * 4 * 10)
    # Queries are projected to 2 heads of size 2, and folded into the key projection; then 5 tokens meet 2 vectors.
    self.assertEqual(flops.scoring(text, 5), 2 * 4 * 4 + 2 * 4 * 4 + 2 * 5 * 4 * 2)
    # With norms, the keys of 5 tokens are computed, and each meets the 2 heads' queries of size 2.
    normed = dataclasses.replace(text, qk_norm=True)
    self.assertEqual(flops.scoring(normed, 5), 2 * 4 * 4 + 2 * 5 * 4 * 2 + 2 * 5 * 2 * 2)
    # Keys and values of 2 layers and 7 tokens, of one head of size 2.
    self.assertEqual(flops.kv_cache_elements(text, 7), 2 * 2 * 7 * 2)
    self.assertEqual(flops.decode_bytes(text, 7, 3, 4), 4 * (2 * 120 + 4 * 10 + 3 * 56))

  def test_decode_bytes_are_those_of_kernels_and_cache(self):
    shapes = traverse_util.flatten_dict(params_lib.abstract(MODEL), sep="/")
    kernels = sum(
      x.size for path, x in shapes.items() if path.startswith(("language_model/", "lm_head/")) and path.endswith("kernel")
    )
    self.assertEqual(flops.decode_bytes(TEXT, 0, 1, 2), 2 * kernels)
    keys_values = ([floats(3, 20, 2, 64)] * 3,) * 2
    cache = jax.eval_shape(functools.partial(cache_lib.make, max_new_tokens=4), keys_values, integers(3))
    self.assertEqual(flops.decode_bytes(TEXT, 24, 3, 4) - 4 * kernels, cache.nbytes)


if __name__ == "__main__":
  absltest.main()
