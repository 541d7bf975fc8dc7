"""The study of the embedded models whose heads no loss has shaped, for `experiments.study`.

python -m experiments.study --config=experiments/configs/unshaped_study.py
python -m experiments.study --config=experiments/configs/unshaped_study.py:few,layer=1
"""

from ml_collections import config_dict

from experiments.digits import embedded
from experiments.running import configs


def get_config(arguments=""):
  """The config.

  Args:
    arguments: `few` for HAWK's own rule and three others without merging, in place of all rules; `layer=N` for the decoder
      layer that scores.
  """
  given = configs.parse_arguments(arguments, few=False, layer=0)
  few = {"selector": ("fastv", "random", "divprune"), "merge": ("none",)} if given["few"] else {}
  name = f"{'few' if few else 'all'}_rules_layer_{given['layer']}"
  return config_dict.ConfigDict(
    {
      "model": tuple(map(str, sorted(embedded.DIRECTORY.glob("unshaped_*")))),
      "score_layer": given["layer"],
      "timing_rounds": 0,  # the times are those of the shaped models
      "output_dir": f"out/study_{name}",
      "results_dir": f"out/study_{name}/results",
      **few,
    }
  )
