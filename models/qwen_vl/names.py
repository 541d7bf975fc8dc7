"""Names of the tensors of Qwen-VL in checkpoints, over time."""

from models.checkpoints.names import Names

NAMES = Names(
  renames=(
    # transformers since 4.52
    (r"^model\.(visual|language_model)\.", r"\1."),
    # the hub's files
    (r"^model\.", "language_model."),
  ),
  prefixes={"visual": "model.visual", "language_model": "model.language_model", "lm_head": "lm_head"},
)
