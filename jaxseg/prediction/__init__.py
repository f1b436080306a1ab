"""A trained network on new images: masks in the geometry of each file, and how far each may be trusted.

inputs.py    files and folders -> images as the network's data set has them
network.py   a trained network -> class probabilities and quality estimates
predictor.py masks of images of any size; the quality estimates of the validation cases
quality.py   a quality estimate against those: percentile, flag
outputs.py   masks and probabilities -> the bytes of a file like the input's
"""
