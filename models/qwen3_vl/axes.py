"""How the parameters of Qwen3-VL outside the decoder are split over a mesh."""

from jax.sharding import PartitionSpec as P

AXES = (
  (r"visual/patch_embed/proj/kernel", P(None, "fsdp")),
  (r"visual/pos_embed/embedding", P(None, "fsdp")),
  (r"visual/.*/attn/qkv/kernel", P("fsdp", None, "vision_heads")),
  (r"visual/.*/attn/qkv/bias", P(None, "vision_heads")),
  (r"visual/.*/attn/proj/kernel", P("vision_heads", "fsdp")),
  # The blocks' MLPs, the merger and those of DeepStack.
  (r"visual/.*/linear_fc1/kernel", P("fsdp", "tensor")),
  (r"visual/.*/linear_fc1/bias", P("tensor")),
  (r"visual/.*/linear_fc2/kernel", P("tensor", "fsdp")),
)
