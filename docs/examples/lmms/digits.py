"""What digits.yaml calls."""

import base64
import io

from PIL import Image


def pictures(doc):
  """The picture of a row."""
  return [Image.open(io.BytesIO(base64.b64decode(doc["image"]))).convert("RGB")]
