"""Figures, tables, the page."""
