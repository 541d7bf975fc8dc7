"""The paper's table for Qwen2.5-VL-7B, for `experiments.evaluate` on one GPU or, with `slice`, on all hosts of a pod.

  python -m experiments.evaluate --config=experiments/configs/qwen7b.py:native,keep=0.2
  python -m experiments.sweep --command=evaluate --config=experiments/configs/qwen7b.py:native

The TSV files are VLMEvalKit's, in the directory that the argument `data` names.
"""

from ml_collections import config_dict

from experiments.running import configs

BENCHMARKS = ("HallusionBench", "MME", "TextVQA_VAL", "ChartQA_TEST", "RealWorldQA")
# The shares of visual tokens that the paper keeps, by resolution.
SHARES = {"native": (0.4, 0.2, 0.1), "fixed1008": (0.395, 0.198, 0.099)}


def get_config(arguments=""):
  """The config.

  Args:
    arguments: `native` (otherwise pictures have 1008 x 1008 pixels), `keep=SHARE` for one share in place of the paper's
      three, `data=DIRECTORY`, `slice` for several processes that share the questions.
  """
  given = configs.parse_arguments(arguments, native=False, keep=0.0, data="LMUData", slice=False)
  resolution = "native" if given["native"] else "fixed1008"
  return config_dict.ConfigDict(
    {
      "model": "Qwen/Qwen2.5-VL-7B-Instruct",
      "head_importance": "preset:qwen2.5-vl-7b",
      "data": tuple(f"{given['data']}/{name}.tsv" for name in BENCHMARKS),
      "selector": ("hawk", "divprune", "fastv", "random"),
      "keep_ratio": (given["keep"],) if given["keep"] else SHARES[resolution],
      "resolution": resolution,
      "dtype": "bfloat16",
      "distributed": given["slice"],
    }
  )


def get_hyper(arguments=""):
  """How heads are normalized and weighted, at each of the paper's shares."""
  shares = SHARES["native" if "native" in arguments.split(",") else "fixed1008"]
  return {
    "selector": ["hawk"],
    "normalization": ["l2", "none", "softmax"],
    "head_importance": ["preset:qwen2.5-vl-7b", "uniform"],
    "keep_ratio": list(shares),
  }
