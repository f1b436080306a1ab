"""Generators of images with known truth and known shortcuts."""
