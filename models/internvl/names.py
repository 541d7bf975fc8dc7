"""Names of InternVL's tensors in checkpoints, over time."""

from models.checkpoints.names import Names

NAMES = Names(
  renames=(
    (r"^(model\.)?multi_modal_projector\.linear_", "multi_modal_projector.linear."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(model\.language_model|language_model\.model)\.", "language_model."),
    (r"^model\.", ""),
  ),
  # The names in the hub's files, which every version of transformers reads.
  prefixes={
    "multi_modal_projector.linear.": "multi_modal_projector.linear_",
    "multi_modal_projector.": "multi_modal_projector.",
    "vision_tower.": "vision_tower.",
    "language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
  },
)
