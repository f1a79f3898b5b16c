"""Compiled kernels; each is optional, and the solver that needs one says so where it is missing."""
