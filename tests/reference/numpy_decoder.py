"""A decoder of the LLaMA kind for one prompt, in float64 NumPy without a cache: what interventions are tested against.

Axes: S tokens, A position axes, H query heads, d head dim, D hidden size.
"""

from __future__ import annotations

import numpy as np

from tests.reference import numpy_hawk


def softmax(x: np.ndarray) -> np.ndarray:
  exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
  return exponentials / exponentials.sum(axis=-1, keepdims=True)


def rotate(x: np.ndarray, positions: np.ndarray, text) -> np.ndarray:
  """[S, H, d] rotated by positions [S, A], whose axes share the frequencies as the decoder's config says."""
  half = x.shape[-1] // 2
  axis = np.repeat(np.arange(positions.shape[1]), text.mrope_section or half)
  if text.mrope_interleaved:
    axis = np.array([i % 3 if i < 3 * text.mrope_section[i % 3] else 0 for i in range(half)])
  angles = (positions[:, axis] * text.rope_theta ** (-np.arange(half) / half))[:, None]
  first, second = x[..., :half], x[..., half:]
  return np.concatenate(
    [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], axis=-1
  )


def project(tree, x: np.ndarray) -> np.ndarray:
  """[S, D] times a projection's kernel, plus its bias if it has one."""
  return x @ np.asarray(tree["kernel"], np.float64) + np.asarray(tree.get("bias", 0.0), np.float64)


def attention(layer, text, x, positions, key_bias) -> np.ndarray:
  """[H, S, S] logits of one layer, -inf where they look ahead.

  Args:
    layer: its parameters.
    text: the decoder's config.
    x: [S, D] what enters the layer, normed.
    positions: [S, A].
    key_bias: [S].
  """

  def split(name):
    heads = project(layer["self_attn"][f"{name}_proj"], x).reshape(len(x), -1, text.head_dim)
    if not text.qk_norm:
      return heads
    return numpy_hawk.rms_norm(heads, layer["self_attn"][f"{name}_norm"]["scale"], text.rms_norm_eps)

  query, key = (rotate(split(name), positions, text) for name in ("q", "k"))
  logits = np.zeros([text.num_attention_heads, len(x), len(x)])
  for head in range(text.num_attention_heads):
    group = head * text.num_key_value_heads // text.num_attention_heads
    logits[head] = query[:, head] @ key[:, group].T / np.sqrt(text.head_dim) + key_bias
  return np.where(np.tril(np.ones([len(x), len(x)], bool)), logits, -np.inf)


def run(
  params, text, x, positions, *, gates=None, hidden=None, key_bias=None, levels=(), layer=0
) -> tuple[np.ndarray, np.ndarray]:
  """A whole sequence.

  Args:
    params: of a port.
    text: its decoder's config.
    x: [S, D] embeddings.
    positions: [S, A].
    gates: [layers, H]; 1 leaves a head, 0 ablates it.
    hidden: [S] bool, keys that an ablated head does not see; None: it puts out nothing.
    key_bias: [S] added to all logits of a key.
    levels: [S, D] each, added after the first layers (DeepStack).
    layer: whose attention is returned.

  Returns:
    [S, vocab] logits, and [H, S, S] attention of the layer.
  """
  decoder, x = params["language_model"], np.asarray(x, np.float64)
  gates = np.ones([text.num_hidden_layers, text.num_attention_heads]) if gates is None else gates
  key_bias = np.zeros(len(x)) if key_bias is None else key_bias
  norm = lambda values, tree: numpy_hawk.rms_norm(values, tree["scale"], text.rms_norm_eps)
  wanted = None
  for number in range(text.num_hidden_layers):
    block = decoder[f"layers_{number}"]
    normed = norm(x, block["input_layernorm"])
    logits = attention(block, text, normed, positions, key_bias)
    wanted = softmax(logits) if number == layer else wanted
    value = project(block["self_attn"]["v_proj"], normed).reshape(len(x), -1, text.head_dim)
    outputs = []
    for head, gate in enumerate(gates[number]):
      values = value[:, head * text.num_key_value_heads // text.num_attention_heads]
      out = gate * softmax(logits[head]) @ values
      if hidden is not None:
        out += (1 - gate) * softmax(np.where(hidden, -np.inf, logits[head])) @ values
      outputs.append(out)
    x = x + project(block["self_attn"]["o_proj"], np.concatenate(outputs, axis=-1))
    normed, mlp = norm(x, block["post_attention_layernorm"]), block["mlp"]
    gated = project(mlp["gate_proj"], normed)
    x = x + project(mlp["down_proj"], gated / (1 + np.exp(-gated)) * project(mlp["up_proj"], normed))
    x = x + levels[number] if number < len(levels) else x
  tied = {"kernel": np.asarray(decoder["embed_tokens"]["embedding"]).T}
  return project(params.get("lm_head", tied), norm(x, decoder["norm"])), wanted


def judge(params, text, x, positions, answer, levels=(), **intervention) -> tuple[float, bool]:
  """Log-likelihood of an answer after a prompt, and whether each of its tokens is the likeliest.

  Args:
    params: as in `run`.
    text: as in `run`.
    x: [S, D] the prompt's embeddings.
    positions: [S, A] its positions; the answer continues from the largest.
    answer: token ids.
    levels: as in `run`, over the prompt's tokens.
    **intervention: of `run`, over the prompt's tokens.
  """
  table, more = np.asarray(params["language_model"]["embed_tokens"]["embedding"]), len(answer) - 1
  x = np.concatenate([x, table[list(answer[:-1])].reshape(more, -1)])
  following = np.repeat(positions.max() + 1 + np.arange(more)[:, None], positions.shape[1], axis=1)
  positions = np.concatenate([positions, following])
  for name in ("hidden", "key_bias"):
    if intervention.get(name) is not None:
      intervention[name] = np.pad(intervention[name], (0, more))
  levels = [np.pad(level, ((0, more), (0, 0))) for level in levels]
  logits, _ = run(params, text, x, positions, levels=levels, **intervention)
  logits = logits[len(x) - more - 1 :]
  chosen = np.log(softmax(logits))[np.arange(len(answer)), list(answer)]
  return float(chosen.sum()), bool((logits.argmax(axis=-1) == answer).all())
