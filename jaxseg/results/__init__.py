"""What a number is: rows with their keys and conventions, claims and verdicts, and how they are written."""
