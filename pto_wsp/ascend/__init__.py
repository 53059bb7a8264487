"""Graphs to AscendC sources: kernels, task generator, host program and build for A2/A3."""
