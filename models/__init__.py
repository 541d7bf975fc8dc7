"""Functional Flax ports of vision-language models with HAWK's pruning.

model, params = load_model(path_or_hub_id)
processor = load_processor(path_or_hub_id)
inputs = model.pack(**processor(images=[[picture]], prompts=["What is this?"]))
out = generate(model, params, inputs, head_importance=w, keep_ratio=0.2)
"""

import os

# transformers warns at import that it found no torch; none is needed here.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from models.generation import generate  # noqa: E402
from models.processor import load_processor  # noqa: E402
from models.registry import load_model  # noqa: E402

__all__ = ["generate", "load_model", "load_processor"]
