"""Kinds of questions that several benchmarks ask: how a prompt reads, what an answer says, and whether it is right.

Prompts and scores are those of VLMEvalKit without a judge.
"""
