"""Principal components of what is known."""

import numpy as np
import pytest

from jaxseg.analysis import projection


def test_principal_components_of_a_known_ellipse():
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.standard_normal((5, 5)))[0]
    coordinates = random.standard_normal((4000, 5)) * (5, 3, 0.1, 0.1, 0.1)
    plane, share = projection.principal_components((coordinates @ axes.T + 7).astype(np.float32))
    for k in (0, 1):
        assert abs(np.corrcoef(plane[:, k], coordinates[:, k])[0, 1]) > 0.999
    np.testing.assert_allclose(share, [25 / 34.03, 9 / 34.03], atol=0.02)


def test_what_has_no_plane_is_refused():
    with pytest.raises(ValueError, match=r"vectors \(4, 1\) must be \[P,D\] with at least 2 channels"):
        projection.principal_components(np.zeros((4, 1)))
