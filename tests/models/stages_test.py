"""Stages in the decoder against a plain reading: masks over the whole prompt, scores in NumPy; adaptive budgets."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from hawk_jax import pruning
from hawk_jax import schedule
from models import generate
from models import generation
from models import stages
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
    with self.assertRaisesRegex(ValueError, "score_layer: fastv does not use the scores of a layer"):
      pruning.Pruning(selector="fastv", score_layer=1)
    with self.assertRaisesRegex(ValueError, "score_layer: got 9, must be a whole number from 0 to"):
      generate(model, params, inputs, score_layer=9, keep_ratio=RATIO)
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


class ScoreLayerTest(parameterized.TestCase):
  """HAWK's scores by a later layer: the layers before it run on all tokens, as FastV's do."""

  PORTS = {"llava": (llava, "llama", ("two", "one")), "qwen3_vl": (qwen3_vl, "gqa", ("two_images", "images_and_video"))}

  def load(self, port):
    self.reference, config, prompts = self.PORTS[port]
    self.model, self.params = checks.load(self.reference, config)
    self.arrays = self.reference.batch(prompts)
    self.inputs = self.model.pack(**self.arrays)
    self.features = generation.encode_pictures(self.model, self.params, self.inputs)

  def apply(self, method, *args):
    return jax.jit(lambda params, *args: self.model.apply({"params": params}, *args, method=method))(self.params, *args)

  @parameterized.parameters(*PORTS)
  def test_equals_scores_of_the_hidden_states(self, port):
    """Scores written out in NumPy, from hidden states of an unpruned run."""
    self.load(port)
    layer, text = 1, self.model.config.text
    scores = lambda module, *args: module.scores(*args, layer)
    found = self.apply(scores, self.inputs.prompt, self.features)
    weights = self.params["language_model"][f"layers_{layer}"]
    size = text.head_dim
    norm = lambda name, y: (
      numpy_hawk.rms_norm(y, weights["self_attn"][name]["scale"], text.rms_norm_eps) if text.qk_norm else y
    )
    for number, row in enumerate(checks.merged(self.model, self.params, self.arrays)):
      whole = np.ones([len(row.ids)] * 2, bool) & np.tri(len(row.ids), dtype=bool)
      hidden = blocks(
        self.params, row.embeddings, row.positions.astype(np.int32), row.levels, whole, model=self.model, start=0, stop=layer
      )
      x = numpy_hawk.rms_norm(np.asarray(hidden), weights["input_layernorm"]["scale"], text.rms_norm_eps)
      split = lambda name, x=x: numpy_decoder.project(weights["self_attn"][name], x).reshape(len(x), -1, size)
      real = self.inputs.prompt.visual_mask[number], self.inputs.prompt.query_mask[number]
      visual, query = self.inputs.prompt.visual_order[number][real[0]], self.inputs.prompt.text_order[number][real[1]]
      queries = norm("q_norm", split("q_proj"))[query]
      keys = norm("k_norm", split("k_proj"))[visual]
      keys = np.repeat(keys, text.num_attention_heads // text.num_key_value_heads, axis=1)
      expected = np.einsum("qhd,vhd->hv", queries, keys) / len(query) / np.sqrt(size)
      np.testing.assert_allclose(np.asarray(found)[number][:, : len(visual)], expected, rtol=1e-3, atol=1e-4)

  @parameterized.parameters(("llava", "hawk"), ("llava", "hawk+tops"), ("llava", "dart"), ("qwen3_vl", "hawk"))
  def test_prunes_by_them_after_the_layer(self, port, selector):
    """The tokens kept are those that the rule picks by these scores among the hidden states; text stays."""
    self.load(port)
    settings = pruning.Pruning(keep_ratio=RATIO, selector=selector, score_layer=1, merge="nearest")
    prompt, plan = self.inputs.prompt, generation.make_plan(self.model, self.inputs.prompt, settings)
    prefill = self.apply(stages.prefill, prompt, self.features, plan)
    self.assertTrue(np.isfinite(prefill.last).all())
    scores = self.apply("fused_scores", prompt, self.features, plan)
    visual = self.apply(lambda module, *args: module._tokens(*args, 1)[1], prompt, self.features)
    kept = settings.rule(visual, scores, prompt.visual_mask, plan.counts, plan.seeds, keep_count=plan.keep_count)
    for row, order in enumerate(np.asarray(prefill.order)):
      chosen = np.asarray(kept)[row]
      expected = {*prompt.text_order[row], *prompt.visual_order[row][chosen[chosen >= 0]]} - {-1}
      self.assertEqual({*order} - {-1}, expected)


class DecoderStagesTest(parameterized.TestCase):
  @parameterized.parameters(
    (llava, "llama", ("two", "one"), "decoder@1:0.4/last"),
    (llava, "llama", ("two", "one"), "input:0.6, decoder@1:0.3/text"),
    # Levels of DeepStack before, between and after the stages.
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), "decoder@1:0.5/last, decoder@2:0.3/text, decoder@3:0.1/change"),
    (qwen3_vl, "gqa", ("two_images", "images_and_video"), "input:0.5, decoder@2:0.2/change"),
  )
  def test_equals_plain_reading(self, reference, config_name, prompts, text):
    """Every layer sees what was left before it, also when it answers: masks over the whole prompt, and no cache."""
    model, params = checks.load(reference, config_name)
    arrays = reference.batch(prompts)
    inputs = model.pack(**arrays)
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    out = generate(model, params, inputs, importance, stages=text, max_new_tokens=STEPS)
    plan = schedule.parse(text)
    rows = checks.merged(model, params, arrays)
    tokens_of = dict(visual_ids=(reference.IMAGE, getattr(reference, "VIDEO", reference.IMAGE)))
    if reference is qwen3_vl:
      tokens_of |= dict(vision_end_id=reference.VISION_END, im_end_id=reference.IM_END)
    entering = [np.arange(len(row.ids)) for row in rows]
    if plan.input is not None:
      entering = checks.expected_positions(model, params, rows, importance, "l2", keep_ratio=plan.input.share, **tokens_of)
    length = max(len(row.ids) for row in rows) + STEPS
    layers = model.config.text.num_hidden_layers
    for number, (row, left) in enumerate(zip(rows, entering, strict=True)):
      size = len(row.ids)
      x, positions, levels = padded(row, length)
      run = lambda x, start, stop, mask, positions=positions, levels=levels: np.asarray(
        blocks(params, x, positions, levels, mask, model=model, start=start, stop=stop)
      )
      visual = np.flatnonzero(np.isin(row.ids, tokens_of["visual_ids"]))
      words = np.setdiff1d(np.arange(size), visual)
      query = numpy_hawk.query_tokens(row.ids, *(tokens_of.get(key) for key in ("visual_ids", "vision_end_id", "im_end_id")))
      table = np.asarray(params["language_model"]["embed_tokens"]["embedding"])
      # For every segment, its first layer and the tokens in it.
      segments = [(0, left)]
      for step in range(STEPS):
        hidden, at = x, 0
        while True:
          start, left = segments[at]
          mask = np.tril(np.ones([length, length], bool)) & (np.isin(np.arange(length), left) | (np.arange(length) >= size))
          stop = segments[at + 1][0] if at + 1 < len(segments) else None
          if stop is None and at < len(plan.decoder):
            stage = plan.decoder[at]
            before = run(hidden, start, stage.layer - 1, mask) if stage.layer - 1 > start else hidden
            after = run(before, stage.layer - 1, stage.layer, mask)
            here = np.intersect1d(visual, left)
            scores = numpy_scores(model, params, before, after, positions, left, here, (query, words), stage)
            count = numpy_hawk.count_to_keep(len(visual), stage.share)
            kept = here[numpy_hawk.top_k(scores, count)]
            segments.append((stage.layer, np.setdiff1d(left, np.setdiff1d(here, kept))))
            hidden, at = after, at + 1
            continue
          hidden = run(hidden, start, layers if stop is None else stop, mask)
          at += 1
          if stop is None:
            break
        token = int(hidden[size + step - 1].argmax())
        self.assertEqual(token, int(out.tokens[number, step]), f"prompt {number}, step {step}")
        x[size + step] = table[token]
      found = np.asarray(out.kept_positions[number])
      np.testing.assert_array_equal(found[found >= 0], segments[-1][1])

  def test_bytes_and_lengths(self):
    """The caches of the layers before a stage hold what these layers saw, and no more."""
    model, params = checks.load(qwen3_vl, "gqa")
    inputs = model.pack(**qwen3_vl.batch(("two_images", "images_and_video")))
    features = generation.encode_pictures(model, params, inputs)
    plan = generation.make_plan(model, inputs.prompt, pruning.Pruning(stages="input:0.5, decoder@1:0.2, decoder@3:0.1"))
    run = jax.jit(lambda prompt: model.apply({"params": params}, prompt, features, plan, method=stages.prefill))
    out = jax.eval_shape(run, inputs.prompt)
    kept = [plan.keep_count, *(cut.keep_count for cut in plan.cuts)]
    slots = np.repeat(inputs.prompt.text_tokens.shape[1] + np.asarray(kept), [1, 2, 1])
    self.assertEqual([keys.shape[1] for part in (*out.earlier, out) for keys in part.keys_values[0]], slots.tolist())
    cache = jax.eval_shape(lambda: run(inputs.prompt).make_cache(5))
    text = model.config.text
    elements = 2 * len(inputs.prompt.text_tokens) * text.num_key_value_heads * text.head_dim
    self.assertEqual(cache.nbytes, 4 * elements * sum(slots + 5))
    real = run(inputs.prompt)
    counts = inputs.prompt.text_counts[:, None] + np.stack([plan.counts, plan.cuts[0].counts, plan.cuts[1].counts], axis=1)
    np.testing.assert_allclose(real.mean_lengths, counts @ [0.25, 0.5, 0.25])


def padded(row, length):
  """Embeddings, positions and levels of a prompt, with room for an answer."""
  missing = length - len(row.ids)
  x = np.pad(row.embeddings, ((0, missing), (0, 0)))
  following = row.positions.max() + 1 + np.arange(missing)
  positions = np.concatenate([row.positions, np.repeat(following[:, None], row.positions.shape[1], 1)]).astype(np.int32)
  return x, positions, np.pad(row.levels, ((0, 0), (0, missing), (0, 0)))


def numpy_scores(model, params, before, after, positions, left, visual, text_tokens, stage):
  """[len(visual)] scores of a stage, in NumPy.

  `before` and `after` are states of all tokens, of which `left` are left; `text_tokens` are the query and all text.
  """
  text, (query, words) = model.config.text, text_tokens
  if stage.score == "change":
    return np.linalg.norm(after[visual] - before[visual], axis=-1)
  if stage.score == "last":
    attention = last_attention(model, params, before[left], positions[left], stage.layer - 1)
    return attention[np.searchsorted(left, visual)]
  layer = params["language_model"][f"layers_{stage.layer}"]
  normed = numpy_hawk.rms_norm(after, np.asarray(layer["input_layernorm"]["scale"]), text.rms_norm_eps)
  attention = layer["self_attn"]
  part = lambda name, kind: np.asarray(attention[name][kind]).T if kind in attention.get(name, {}) else None
  kinds = (("q_proj", "kernel"), ("k_proj", "kernel"), ("q_proj", "bias"), ("k_proj", "bias"))
  norms = [part(name, "scale") for name in ("q_norm", "k_norm")]
  heads = lambda tokens: numpy_hawk.head_scores(
    normed[query],
    normed[tokens],
    *(part(*kind) for kind in kinds),
    text.num_attention_heads,
    text.num_key_value_heads,
    *norms,
    text.rms_norm_eps,
  )
  # The share of its attention that a head puts on visual tokens, among those and the text up to the question's end.
  seen = words[words <= max(query)]
  mass = np.exp(heads(visual)).sum(axis=1) / (np.exp(heads(visual)).sum(axis=1) + np.exp(heads(seen)).sum(axis=1))
  return numpy_hawk.fuse(numpy_hawk.normalize(heads(visual), "l2"), mass / mass.sum())


if __name__ == "__main__":
  absltest.main()
