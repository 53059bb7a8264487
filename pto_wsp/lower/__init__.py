"""Graphs to machine code."""
