"""One file for each cue that a network may use, or question that it is asked."""
