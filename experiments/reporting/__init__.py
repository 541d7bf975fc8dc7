"""Figures, tables, intervals, and the explorer's page."""
