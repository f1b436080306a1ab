"""Of what the segmentation-ability study's numbers are means."""

DICE = "Dice per case of the output, mean; empty in annotation and output is undefined and left out"
SA = (
    "SA score per case: Dice of the prototype map (soft mask of the network, bilinear) with the annotation, mean; "
    "undefined where the mask has an empty side"
)
