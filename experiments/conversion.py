"""A Hugging Face checkpoint to Orbax's format, a layer at a time; see `experiments.convert`."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil

from flax import traverse_util
import jax

from experiments import command
from experiments import journal
from models import checkpoint
from models import orbax_store
from models import registry


def convert(source: pathlib.Path, output: pathlib.Path, dtype: str | None) -> None:
  """Writes a checkpoint.

  Args:
    source: a directory in Hugging Face layout.
    output: absolute path of the new directory; beside it, `.partial` is what there is so far.
    dtype: of the new parameters, or None.

  Raises:
    ValueError: a source that does not fit its config, or an output that is there or is of another conversion.
  """
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise ValueError(f"output_dir: {output} is there already; remove it or give another")
  partial = command.output_directory("output_dir", str(output.with_name(output.name + ".partial")))
  model = registry.build(source, checkpoint.read_config(source))
  wanted = traverse_util.flatten_dict(checkpoint.abstract_params(model))
  tensors = checkpoint.find_tensors(source, model, wanted)
  dtypes = {path: dtype or checkpoint.stored_dtype(*tensor) for path, tensor in tensors.items()}
  groups = orbax_store.groups(wanted)
  files = sorted(path for path in source.iterdir() if path.is_file())
  weights = {path.name: [path.stat().st_size, path.stat().st_mtime] for path in files if path.suffix == ".safetensors"}
  config = hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
  records = journal.Journal(partial / "conversion.jsonl", {"dtype": dtype, "config": config, "weights": weights})
  names, tally = list(groups), checkpoint.Tally()
  for number in records.remaining(len(names), "layer"):
    for leftover in (partial / "params").glob("*orbax-checkpoint-tmp*"):
      shutil.rmtree(leftover)
    params = {path: checkpoint.read_param(path, wanted[path].shape, *tensors[path], dtypes[path], tally)
              for path in groups[names[number]]}
    orbax_store.save_group(partial, names[number], params)
    records.append({"group": names[number]})
  records.close()
  for path in files:
    if path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.endswith(".safetensors.index.json"):
      shutil.copyfile(path, partial / path.name)
  abstract = {path: jax.ShapeDtypeStruct(value.shape, checkpoint.DTYPES[dtypes[path]]) for path, value in wanted.items()}
  journal.write(partial / orbax_store.MANIFEST, orbax_store.manifest(abstract))
  os.replace(partial, output)
  (output / "conversion.jsonl").unlink()
