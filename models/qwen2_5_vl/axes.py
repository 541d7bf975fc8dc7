"""How the parameters of Qwen2.5-VL outside the decoder are split over a mesh."""

from jax.sharding import PartitionSpec as P

AXES = (
  (r"visual/patch_embed/proj/kernel", P(None, "fsdp")),
  (r"visual/.*/attn/qkv/kernel", P("fsdp", None, "vision_heads")),
  (r"visual/.*/attn/qkv/bias", P(None, "vision_heads")),
  (r"visual/.*/attn/proj/kernel", P("vision_heads", "fsdp")),
  (r"visual/merger/mlp_0/kernel", P("fsdp", "tensor")),
  (r"visual/merger/mlp_0/bias", P("tensor")),
  (r"visual/merger/mlp_2/kernel", P("tensor", "fsdp")),
)
