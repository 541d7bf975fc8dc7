"""Converts a Hugging Face checkpoint to Orbax's format, one layer at a time; see `experiments.convert`."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil

from flax import traverse_util
import jax

from experiments.running import files
from experiments.running import journal
from models import registry
from models.checkpoints import hf
from models.checkpoints import orbax
from models.checkpoints import params as params_lib
from models.checkpoints.sharded import Tally


def convert(source: pathlib.Path, output: pathlib.Path, dtype: str | None) -> None:
  """Writes a checkpoint.

  Args:
    source: a directory in Hugging Face layout.
    output: absolute path of the new directory; its name ends in `.partial` until it is complete.
    dtype: of the new parameters; None: each keeps the dtype that it is stored in.

  Raises:
    ValueError: the source does not fit its config, or the output exists or belongs to another conversion.
  """
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise ValueError(f"output_dir: {output} exists already; remove it or give another")
  partial = files.output_directory("output_dir", str(output.with_name(output.name + ".partial")))
  _, model = registry.describe(str(source))
  wanted = traverse_util.flatten_dict(params_lib.abstract(model))
  tensors = hf.find_tensors(source, model, wanted)
  dtypes = {path: dtype or hf.stored_dtype(*tensor) for path, tensor in tensors.items()}
  groups = orbax.groups(wanted)
  source_files = sorted(path for path in source.iterdir() if path.is_file())
  weights = {
    path.name: [path.stat().st_size, path.stat().st_mtime] for path in source_files if path.suffix == ".safetensors"
  }
  config = hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
  records = journal.Journal(partial / "conversion.jsonl", {"dtype": dtype, "config": config, "weights": weights})
  names, tally = list(groups), Tally()
  for number in records.remaining(len(names), "layer"):
    for leftover in (partial / "params").glob("*orbax-checkpoint-tmp*"):
      shutil.rmtree(leftover)
    params = {
      path: hf.read_param(path, wanted[path].shape, *tensors[path], dtypes[path], tally) for path in groups[names[number]]
    }
    orbax.save_group(partial, names[number], params)
    records.append({"group": names[number]})
  records.close()
  for path in source_files:
    if path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.endswith(".safetensors.index.json"):
      shutil.copyfile(path, partial / path.name)
  abstract = {path: jax.ShapeDtypeStruct(value.shape, params_lib.DTYPES[dtypes[path]]) for path, value in wanted.items()}
  files.write(partial / orbax.MANIFEST, orbax.manifest(abstract))
  os.replace(partial, output)
  (output / "conversion.jsonl").unlink()
