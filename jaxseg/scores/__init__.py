"""Quality scores: what each means, what it needs, and how it is computed without annotation."""
