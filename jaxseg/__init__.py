"""jaxseg: what has a segmentation network really learned, and where will it fail?

Sub-packages are imported by name (`from jaxseg.metrics import overlap`), so that `import jaxseg` stays light.
"""

__version__ = "0.1.0"
