"""The border shortcut (Lin, Weng et al. 2024, section 4)."""
