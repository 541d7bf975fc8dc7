"""Stages: FastV against a plain reading (masks over the whole prompt, attention written out in NumPy), adaptive budgets."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from hawk_jax import pruning
from models import generate
from models import generation
from tests.reference import checks
from tests.reference import llava
from tests.reference import numpy_decoder
from tests.reference import numpy_hawk
from tests.reference import qwen3_vl

STEPS, RATIO = 3, 0.198


def last_attention(model, params, x, positions, layer):
  """[S] what the last of S tokens attends to, mean over heads."""
  text = model.config.text
  weights = params["language_model"][f"layers_{layer}"]
  normed = numpy_hawk.rms_norm(x, weights["input_layernorm"]["scale"], text.rms_norm_eps)
  logits = numpy_decoder.attention(weights, text, normed, positions, np.zeros(len(x)))
  return numpy_decoder.softmax(logits[:, -1]).mean(axis=0)


class FastVTest(parameterized.TestCase):
  @parameterized.parameters(
    (llava, "llama", ("two", "one"), 1),
    # Two levels of DeepStack: the layers before prune_layer add them to all visual tokens, the others to those kept.
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), 1),
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), 2),
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), 3),
  )
  def test_equals_plain_reading(self, reference, config_name, prompts, prune_layer):
    model, params = checks.load(reference, config_name)
    arrays = reference.batch(prompts)
    out = generate(
      model, params, model.pack(**arrays), selector="fastv", prune_layer=prune_layer, keep_ratio=RATIO, max_new_tokens=STEPS
    )

    def apply(x, positions, levels, start, stop, mask):
      run = lambda module: module.language_model.blocks(
        x[None], positions[None], start, stop, mask=mask, deepstack=checks.deepstack(levels[:, None])
      )
      return np.asarray(model.apply({"params": params}, method=run)[0])[0]

    head = lambda x: np.asarray(
      model.apply({"params": params}, x, method=lambda module, x: module.logits(module.language_model.norm(x)))
    )
    table = np.asarray(params["language_model"]["embed_tokens"]["embedding"])
    layers = model.config.text.num_hidden_layers
    for number, row in enumerate(checks.merged(model, params, arrays)):
      x, positions, levels, size = row.embeddings, row.positions, row.levels, len(row.ids)
      visual = np.flatnonzero(np.isin(row.ids, (reference.IMAGE, getattr(reference, "VIDEO", reference.IMAGE))))
      entering = apply(x, positions, levels, 0, prune_layer - 1, None)
      attention = last_attention(model, params, entering, positions, prune_layer - 1)
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
        whole = apply(x, positions, levels, 0, prune_layer, early[None])
        logits = head(apply(whole, positions, levels, prune_layer, layers, (causal & seen)[None]))[-1]
        token = int(logits.argmax())
        self.assertEqual(token, int(out.tokens[number, step]))
        x = np.concatenate([x, table[token][None]])
        following = np.full([1, positions.shape[1]], row.positions.max() + 1 + step)
        positions = np.concatenate([positions, following]).astype(np.int32)
        levels = np.pad(levels, ((0, 0), (0, 1), (0, 0)))

  def test_bad_input(self):
    model, params = checks.load(llava, "llama")
    inputs = model.pack(**llava.batch(("one",)))
    with self.assertRaisesRegex(ValueError, "prune_layer: got 0, must be a whole number of at least 1"):
      generate(model, params, inputs, selector="fastv", prune_layer=0, keep_ratio=RATIO)
    with self.assertRaisesRegex(ValueError, "keep_mass: fastv uses scores of its own"):
      generate(model, params, inputs, selector="fastv", prune_layer=1, keep_mass=0.5, keep_ratio=RATIO)

  def test_adaptive_budget_bounds(self):
    model, params = checks.load(llava, "llama")
    inputs = model.pack(**llava.batch(("two", "one")))
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
