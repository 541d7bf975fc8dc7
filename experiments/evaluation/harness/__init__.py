"""Pruned models in the evaluation harnesses VLMEvalKit and lmms-eval."""
