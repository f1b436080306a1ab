"""The overlay shortcut (Lin, Weng et al. 2024, section 3)."""
