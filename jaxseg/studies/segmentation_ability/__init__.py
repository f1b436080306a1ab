"""Segmentation ability (He et al. 2022)."""
