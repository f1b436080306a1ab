"""Raw files to batches on the device."""
