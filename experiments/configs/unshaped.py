"""Embedded models whose heads no loss has shaped: three seeds of both architectures, for `experiments.study`.

python -m experiments.train --config=experiments/configs/unshaped.py:llava --output_dir=out/llava_unshaped
python -m experiments.sweep --command=train --config=experiments/configs/unshaped.py --output_dir=out/unshaped
"""

from ml_collections import config_dict

from experiments.running import configs

# LLaVA's tower takes longer to learn what is to the left of a cell.
_STEPS = {"qwen2_5_vl": {"read_first": 800, "steps": 3500}, "llava": {"read_first": 2000, "steps": 4700}}


def get_config(arguments=""):
  """Arguments: `llava` for LLaVA instead of Qwen2.5-VL."""
  llava = configs.parse_arguments(arguments, llava=False)["llava"]
  name = "llava" if llava else "qwen2_5_vl"
  return config_dict.ConfigDict(
    {
      "architecture": name,
      **_STEPS[name],
      "optimizer": "muon",
      "point_middle": False,
      "probe_left": True,
      "see_few": True,
      "answer_early": True,
    }
  )


def get_hyper(arguments=""):
  """Six points: three seeds of each architecture."""
  del arguments
  return [{"architecture": name, "seed": seed, **steps} for seed in range(3) for name, steps in _STEPS.items()]
