"""Random changes of what a network is trained on: on the device, pure, of pictures and of volumes."""
