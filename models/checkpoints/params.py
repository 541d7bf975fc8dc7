"""Parameters without a checkpoint: their shapes, random values, and their dtypes."""

from __future__ import annotations

import functools
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tqdm

from hawk_jax import checks
from models import sharding

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def check_dtype(dtype: str) -> None:
  """Refuses a dtype that parameters cannot have.

  Raises:
    ValueError: for such a dtype.
  """
  checks.choice("dtype", dtype, DTYPES)


def abstract(model) -> dict[str, Any]:
  """Shapes of a model's parameters; nothing is allocated."""
  return jax.tree.map(lambda shape: shape, _abstract(model))  # a dict of the caller's own


@functools.lru_cache(maxsize=64)
def _abstract(model):
  """Kept, since it traces the whole model, which takes longer than loading a small one."""
  return jax.eval_shape(model.init, jax.random.key(0), model.example())["params"]


def init(model, seed: int = 0, dtype: str = "float32", scale: float = 0.02) -> dict[str, Any]:
  """Random parameters for measurements: kernels and embeddings normal, norms 1, biases 0.

  Args:
    model: a port, over whose mesh they are spread.
    seed: of the random numbers.
    dtype: `float32`, `bfloat16` or `float16`.
    scale: standard deviation of kernels and embeddings.
  """
  shapes = abstract(model)
  flat = traverse_util.flatten_dict(shapes)
  specs = {} if model.mesh is None else traverse_util.flatten_dict(sharding.param_specs(shapes, model))
  place = lambda path, value: jax.device_put(value, specs[path]) if specs else value
  keys = jax.random.split(jax.random.key(seed), len(flat))
  make = {"scale": lambda key, shape: jnp.ones(shape, dtype), "bias": lambda key, shape: jnp.zeros(shape, dtype)}
  normal = functools.partial(_normal, dtype=dtype, scale=scale)
  return traverse_util.unflatten_dict(
    {path: place(path, make.get(path[-1], normal)(key, value.shape)) for key, (path, value) in zip(keys, flat.items())}
  )


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "scale"))
def _normal(key, shape, dtype, scale):
  return (scale * jax.random.normal(key, shape, jnp.float32)).astype(dtype)


def progress(items, what: str, unit: str):
  """A progress bar that appears after two seconds, in the first process only."""
  return tqdm.tqdm(items, desc=what, unit=unit, delay=2, disable=jax.process_index() > 0)
