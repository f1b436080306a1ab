"""Pruned skip connections (Wilm et al. 2024)."""
