"""Measurements of time and memory, and the work that a model cannot avoid."""
