"""Does the gray level tell the size of the object? A study of one question, as ARCHITECTURE.md says to add one."""
