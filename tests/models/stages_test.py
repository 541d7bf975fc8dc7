"""Stages: FastV against a plain reading (masks over the whole prompt, attention written out in NumPy), adaptive budgets."""

import functools

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


@functools.partial(jax.jit, static_argnames=("model", "start", "stop"))
def blocks(params, x, positions, levels, mask, *, model, start, stop):
  """Layers `start` to `stop` over one sequence [S, D]; after the last layer, logits [S, vocab]."""

  def call(module):
    deepstack = checks.deepstack(levels[:, None])
    out, _ = module.language_model.blocks(x[None], positions[None], start, stop, mask=mask[None], deepstack=deepstack)
    last = stop == model.config.text.num_hidden_layers
    return (module.logits(module.language_model.norm(out)) if last else out)[0]

  return model.apply({"params": params}, method=call)


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
    table = np.asarray(params["language_model"]["embed_tokens"]["embedding"])
    layers, rows = model.config.text.num_hidden_layers, checks.merged(model, params, arrays)
    # Of one length, so that little is compiled.
    length = max(len(row.ids) for row in rows) + STEPS
    causal = np.tril(np.ones([length, length], bool))
    for number, row in enumerate(rows):
      size = len(row.ids)
      x = np.pad(row.embeddings, ((0, length - size), (0, 0)))
      levels = np.pad(row.levels, ((0, 0), (0, length - size), (0, 0)))
      following = row.positions.max() + 1 + np.arange(length - size)
      positions = np.concatenate([row.positions, np.repeat(following[:, None], row.positions.shape[1], 1)]).astype(np.int32)
      run = lambda x, start, stop, mask, positions=positions, levels=levels: np.asarray(
        blocks(params, x, positions, levels, mask, model=model, start=start, stop=stop)
      )
      visual = np.flatnonzero(np.isin(row.ids, (reference.IMAGE, getattr(reference, "VIDEO", reference.IMAGE))))
      entering = run(x, 0, prune_layer - 1, causal)[:size]
      attention = last_attention(model, params, entering, row.positions, prune_layer - 1)
      count = numpy_hawk.count_to_keep(len(visual), RATIO)
      kept = visual[numpy_hawk.top_k(attention[visual], count)]
      seen = ~np.isin(np.arange(length), visual) | np.isin(np.arange(length), kept)
      found = np.asarray(out.kept_positions[number])
      np.testing.assert_array_equal(found[found >= 0], np.flatnonzero(seen[:size]))
      early = causal.copy()
      early[size:] &= seen
      for step in range(STEPS):
        whole = run(x, 0, prune_layer, early)
        token = int(run(whole, prune_layer, layers, causal & seen)[size + step - 1].argmax())
        self.assertEqual(token, int(out.tokens[number, step]))
        x[size + step] = table[token]

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
