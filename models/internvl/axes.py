"""How the parameters of InternVL outside the decoder are split over a mesh."""

from jax.sharding import PartitionSpec as P

from models import vision_encoder

AXES = (
  (r"vision_tower/embeddings/patch_embeddings/projection/kernel", P(None, "fsdp")),
  (r"vision_tower/embeddings/position_embeddings", P(None, None, "fsdp")),
  (r"vision_tower/.*/projection_layer/kernel", P("vision_heads", "fsdp")),
  # Vectors as long as the hidden state.
  (r".*/(cls_token|lambda_[12])", P()),
  *vision_encoder.BLOCK_AXES,
)
