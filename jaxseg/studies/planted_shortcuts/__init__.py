"""Networks with a planted shortcut and their twins without: what the audit says of them."""
