"""Grouped-query attention with memory linear in length, on every platform."""

from models.attention.dispatch import attention

__all__ = ["attention"]
