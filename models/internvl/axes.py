"""How the parameters of InternVL outside the decoder are split over a mesh."""

from jax.sharding import PartitionSpec as P

AXES = (
  (r"vision_tower/embeddings/patch_embeddings/projection/kernel", P(None, "fsdp")),
  (r"vision_tower/embeddings/position_embeddings", P(None, None, "fsdp")),
  (r"vision_tower/.*/[qkv]_proj/kernel", P("fsdp", "vision_heads")),
  (r"vision_tower/.*/[qkv]_proj/bias", P("vision_heads")),
  (r"vision_tower/.*/projection_layer/kernel", P("vision_heads", "fsdp")),
  (r"vision_tower/.*/fc1/kernel", P("fsdp", "tensor")),
  (r"vision_tower/.*/fc1/bias", P("tensor")),
  (r"vision_tower/.*/fc2/kernel", P("tensor", "fsdp")),
  (r"multi_modal_projector/linear_1/kernel", P("fsdp", "tensor")),
  (r"multi_modal_projector/linear_1/bias", P("tensor")),
  (r"multi_modal_projector/linear_2/kernel", P("tensor", "fsdp")),
  # Vectors as long as the hidden state.
  (r".*/(cls_token|lambda_[12])", P()),
)
