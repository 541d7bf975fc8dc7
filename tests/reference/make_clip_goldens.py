"""Writes clip.safetensors: what transformers' CLIPModel makes of the texts in `clip.py` and the pictures in `llava.py`.

Needs torch, so it runs in development only: python -m tests.reference.make_clip_goldens
"""

from __future__ import annotations

from safetensors.numpy import save_file
import torch
import transformers

from tests.reference import clip
from tests.reference import llava


@torch.no_grad()
def main():
  torch.set_num_threads(1)
  goldens = {}
  for name, config in clip.CONFIGS.items():
    model = transformers.CLIPModel._from_config(
      transformers.CLIPConfig(**config), attn_implementation="eager", dtype=torch.float32
    ).eval()
    model.load_state_dict({key: torch.from_numpy(value) for key, value in clip.weights().items()})
    states = model.vision_model(torch.from_numpy(llava.batch(clip.CASES)["pixel_values"]), output_hidden_states=True)
    patches = model.visual_projection(model.vision_model.post_layernorm(states.hidden_states[-2][:, 1:]))
    texts = model.get_text_features(torch.from_numpy(clip.tokens(name))).pooler_output
    unit = lambda x: torch.nn.functional.normalize(x, dim=-1)
    goldens[f"{name}/texts"] = texts.numpy()
    goldens[f"{name}/cosines"] = (unit(texts) @ unit(patches.flatten(0, 1)).T).numpy()
    goldens[f"{name}/fingerprint"] = clip.fingerprint(name)
    print(f"{name:9} texts std {texts.std():.2f}, cosines std {goldens[f'{name}/cosines'].std():.2f}")
  save_file(goldens, clip.GOLDENS, metadata={"torch": torch.__version__, "transformers": transformers.__version__})
  print(f"{clip.GOLDENS.name}: {clip.GOLDENS.stat().st_size:,} bytes")


if __name__ == "__main__":
  main()
