"""How the parameters of LLaVA outside the decoder are split over a mesh."""

from jax.sharding import PartitionSpec as P

from models import vision_encoder

AXES = (*vision_encoder.AXES, (r".*/class_embedding", P()))
