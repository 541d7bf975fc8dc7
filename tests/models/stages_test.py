"""Stages: FastV against a plain reading (masks over the whole prompt, attention written out in NumPy), adaptive budgets."""

from absl.testing import absltest
import jax
import numpy as np

from hawk_jax import pruning
from models import generate
from models import generation
from tests.reference import checks
from tests.reference import llava as reference
from tests.reference import numpy_hawk

STEPS, RATIO = 3, 0.198


def rotate(x, positions, theta):
  half = x.shape[-1] // 2
  angles = positions[:, None] * theta ** (-np.arange(half) / half)
  cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
  first, second = x[..., :half], x[..., half:]
  return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def last_attention(model, params, x, positions, layer):
  """[S] what the last of S tokens attends to, mean over heads."""
  text = model.config.text
  weights = params["language_model"][f"layers_{layer}"]
  normed = numpy_hawk.rms_norm(x, weights["input_layernorm"]["scale"], text.rms_norm_eps)
  project = lambda name: (normed @ np.asarray(weights["self_attn"][name]["kernel"])).reshape(len(x), -1, text.head_dim)
  query = rotate(project("q_proj"), positions, text.rope_theta)[-1]
  key = np.repeat(
    rotate(project("k_proj"), positions, text.rope_theta), text.num_attention_heads // text.num_key_value_heads, axis=1
  )
  logits = np.einsum("hd,thd->ht", query, key) / np.sqrt(text.head_dim)
  exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
  return (exponentials / exponentials.sum(axis=1, keepdims=True)).mean(axis=0)


class FastVTest(absltest.TestCase):
  def test_equals_plain_reading(self):
    model, params = checks.load(reference, "llama")
    prune_layer = 1
    arrays = reference.batch(("two", "one"))
    out = generate(
      model, params, model.pack(**arrays), selector="fastv", prune_layer=prune_layer, keep_ratio=RATIO, max_new_tokens=STEPS
    )
    apply = lambda x, positions, start, stop, mask: np.asarray(
      model.apply(
        {"params": params},
        x,
        positions,
        start,
        stop,
        mask=mask,
        method=lambda module, *args, mask: module.language_model.blocks(*args, mask=mask)[0],
      )
    )
    head = lambda x: np.asarray(
      model.apply({"params": params}, x, method=lambda module, x: module.logits(module.language_model.norm(x)))
    )
    table = np.asarray(params["language_model"]["embed_tokens"]["embedding"])
    layers = model.config.text.num_hidden_layers
    for number, row in enumerate(checks.merged(model, params, arrays)):
      x, positions, size = row.embeddings, row.positions, len(row.ids)
      visual = np.flatnonzero(row.ids == reference.IMAGE)
      entering = apply(x[None], positions[None], 0, prune_layer - 1, None)[0]
      attention = last_attention(model, params, entering, positions[:, 0], prune_layer - 1)
      count = numpy_hawk.count_to_keep(len(visual), RATIO)
      kept = visual[numpy_hawk.top_k(attention[visual], count)]
      stay = ~np.isin(np.arange(size), visual) | np.isin(np.arange(size), kept)
      found = np.asarray(out.kept_positions[number])
      np.testing.assert_array_equal(found[found >= 0], np.flatnonzero(stay))
      for step in range(STEPS):
        total = size + step
        causal = np.tril(np.ones([total, total], bool))
        seen = np.concatenate([stay, np.ones(step, bool)])
        early = causal.copy()
        early[size:] &= seen
        whole = apply(x[None], positions[None], 0, prune_layer, early[None])
        logits = head(apply(whole, positions[None], prune_layer, layers, (causal & seen)[None]))[0, -1]
        token = int(logits.argmax())
        self.assertEqual(token, int(out.tokens[number, step]))
        x = np.concatenate([x, table[token][None]])
        positions = np.concatenate([positions, [[size + step]]]).astype(np.int32)

  def test_bad_input(self):
    model, params = checks.load(reference, "llama")
    inputs = model.pack(**reference.batch(("one",)))
    with self.assertRaisesRegex(ValueError, "prune_layer: got 0, must be a whole number of at least 1"):
      generate(model, params, inputs, selector="fastv", prune_layer=0, keep_ratio=RATIO)
    with self.assertRaisesRegex(ValueError, "keep_mass: fastv uses scores of its own"):
      generate(model, params, inputs, selector="fastv", prune_layer=1, keep_mass=0.5, keep_ratio=RATIO)

  def test_adaptive_budget_bounds(self):
    model, params = checks.load(reference, "llama")
    inputs = model.pack(**reference.batch(("two", "one")))
    features = generation.encode_pictures(model, params, inputs)

    def kept(**settings):
      plan = generation.make_plan(model, inputs.prompt, pruning.Pruning(**settings))
      sequence = jax.jit(lambda prompt: model.apply({"params": params}, prompt, features, plan, method="prune"))(
        inputs.prompt
      )
      return np.asarray(sequence.visual).sum(axis=1)

    bound = kept(keep_ratio=0.5)
    few, many = kept(keep_ratio=0.5, keep_mass=0.05), kept(keep_ratio=0.5, keep_mass=0.2)
    self.assertTrue((few < many).all() and (many <= bound).all() and (few >= 1).all())
    np.testing.assert_array_equal(kept(keep_ratio=0.5, keep_mass=1.0), bound)


if __name__ == "__main__":
  absltest.main()
