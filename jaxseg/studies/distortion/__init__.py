"""Segmentation distortion (Lennartz and Schultz 2023)."""
