"""The synthetic hearts: one anatomy in every scanner, scanners as they are described, sizes as in ACDC."""

import functools
import itertools

import numpy as np
import pytest
import scipy.fft
import scipy.special
from scipy import ndimage

from jaxseg.data.synthetic import cardiac
from jaxseg.errors import InputError

SIZE = 64
PATIENTS = 60
BASE, MIDDLE, APEX = POSITIONS = (1.5 / 9, 0.5, 7.5 / 9)  # the second slice of nine, the middle one, the last but one
RIGHT, MUSCLE, LEFT = 1, 2, 3

# Medians of 79 patients of ACDC, its second, middle and last but one slices, both frames by turns. Areas in mm^2, with
# voxels of 3 mm as its half-size copies have; signals as shares of the left ventricle's, per slice.
ACDC_AREAS = {RIGHT: (2350, 990, 70), MUSCLE: (2100, 1760, 940), LEFT: (2090, 1970, 880)}
ACDC_SIGNALS = {RIGHT: 0.78, MUSCLE: 0.42}


rendered = functools.cache(cardiac.render)  # not to be changed


@pytest.fixture(scope="module")
def slices():
    """Vendor A, `[patient, position, size, size]`."""
    drawn = [[rendered(3, patient, position, SIZE) for position in POSITIONS] for patient in range(PATIENTS)]
    return tuple(np.array([[pair[i] for pair in row] for row in drawn]) for i in range(2))


@pytest.fixture(scope="module")
def stacks():
    return [cardiac.volume(4, patient, SIZE, slices=10) for patient in range(20)]


def linear(image, machine):
    """Gray levels before gamma."""
    return 255 * (image / 255) ** (1 / machine.gamma)


def neighbours(labels):
    """`[4, size, size]`: the labels above, below, to the left and to the right; the outermost pixels are left out."""
    return np.stack([labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]])


def beside_cavity(labels):
    return np.unique(neighbours(labels)[:, labels[1:-1, 1:-1] == LEFT])


def overlap(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def ideal(machine, **changes):
    return machine._replace(noise=0.0, gamma=1.0, **changes)


def step_edge(machine, size=512, along_rows=False):
    """What becomes of a step from 0 to 200 in the middle of the field: places in mm and shares of the step."""
    signal = np.zeros((size, size), np.float32)
    signal[:, size // 2 :] = 200
    signal = signal.T if along_rows else signal
    image = cardiac.acquire(np.random.default_rng(0), signal + 25, machine).astype(float)
    profile = image[:, size // 2] if along_rows else image[size // 2]
    return (np.arange(size) + 0.5 - size // 2) * cardiac.FIELD_OF_VIEW / size, (profile - 25) / 200


def rise(place, share):
    """mm between 10 and 90 % of the step."""
    middle = abs(place) < 8
    low, high = (np.interp(level, np.maximum.accumulate(share[middle]), place[middle]) for level in (0.1, 0.9))
    return high - low


# Anatomy.


def test_shapes_and_values(slices):
    for array in slices:
        assert array.shape == (PATIENTS, 3, SIZE, SIZE) and array.dtype == np.uint8
    assert set(np.unique(slices[1])) == {0, RIGHT, MUSCLE, LEFT}
    assert (slices[1] == MUSCLE).any(axis=(2, 3)).all()
    assert len(cardiac.CLASS_NAMES) == 4 and cardiac.VENDORS == ("A", "B", "C", "D")


@pytest.mark.parametrize("place", [(5, 3, 0.4), (6, 2, 0.4), (2, 5, 0.4), (5, 2, 0.41)])
def test_seed_patient_and_position_alone_say_what_is_drawn(place):
    image, labels = cardiac.render(5, 2, 0.4, SIZE)
    other_image, other_labels = cardiac.render(*place, SIZE)
    assert (image != other_image).mean() > 0.5
    assert (labels != other_labels).any()
    again_image, again_labels = cardiac.render(5, 2, 0.4, SIZE)
    np.testing.assert_array_equal(image, again_image)
    np.testing.assert_array_equal(labels, again_labels)


def test_left_ventricle_is_enclosed_by_myocardium_between_base_and_apex():
    for patient in range(30):
        for position in (0.25, 0.5, 0.75):
            labels = cardiac.render(7, patient, position, SIZE)[1]
            assert set(beside_cavity(labels)) == {MUSCLE, LEFT}
            filled = ndimage.binary_fill_holes(labels == MUSCLE)
            np.testing.assert_array_equal(filled, labels >= MUSCLE)


def test_half_of_the_hearts_are_open_at_the_base():
    opened = [0 in beside_cavity(cardiac.render(7, patient, 0.0, SIZE)[1]) for patient in range(PATIENTS)]
    assert 0.3 < np.mean(opened) < 0.7


def test_papillary_muscles_are_as_dark_as_myocardium_and_labelled_as_blood():
    dark = []
    for patient in range(20):
        image, labels = cardiac.render(7, patient, 0.5, 128)
        inside = ndimage.binary_erosion(labels == LEFT, iterations=3)
        between = (np.median(image[labels == LEFT]) + np.median(image[labels == MUSCLE])) / 2
        dark.append((image[inside] < between).mean())
    assert 0.02 < np.mean(dark) < 0.2


def test_right_ventricle_is_one_piece_and_touches_the_septum(slices):
    for labels in slices[1][:, 1]:
        pieces, _ = ndimage.label(labels == RIGHT)
        sizes = np.bincount(pieces.ravel())[1:]
        if not sizes.size:
            continue
        assert sizes.sum() - sizes.max() <= max(0.05 * sizes.sum(), 5)  # a thin crescent may fall apart at its ends
        assert (labels[ndimage.binary_dilation(labels == RIGHT)] == MUSCLE).any()


def test_the_chest_holds_the_heart(slices):
    for image, labels in zip(slices[0][:, 0], slices[1][:, 0], strict=True):
        smooth = ndimage.gaussian_filter(image.astype(float), 1)
        dark, _ = ndimage.label(smooth < 13)  # air is at 5, lung at 26
        corners = np.unique(dark[[0, 0, -1, -1], [0, -1, 0, -1]])
        air = np.isin(dark, corners[corners > 0])
        depth = ndimage.distance_transform_edt(~air) * cardiac.FIELD_OF_VIEW / SIZE
        assert depth[labels > 0].min() > 20  # mm: the chest's wall and its skin


def test_areas_shrink_towards_the_apex(stacks):
    for _, labels, _ in stacks:
        for number in (RIGHT, MUSCLE, LEFT):
            areas = (labels == number).sum(axis=(1, 2))
            assert (np.diff(areas[4:]) <= np.maximum(0.08 * areas[4:-1], 3)).all()
            assert areas[-1] < 0.6 * areas[4]


def test_right_ventricle_ends_before_the_apex_and_does_not_come_back(stacks):
    seen = np.array([(labels == RIGHT).any(axis=(1, 2)) for _, labels, _ in stacks])
    assert seen[:, :6].all()
    assert (np.diff(seen.astype(int), axis=1) <= 0).all()
    assert 0.05 < seen[:, -1].mean() < 0.6
    assert (np.stack([labels[-1] == RIGHT for _, labels, _ in stacks]).sum(axis=(1, 2)) < 25).all()


def test_neighbouring_slices_belong_to_one_heart(stacks):
    def between(first, second):
        return overlap(first >= MUSCLE, second >= MUSCLE)

    own = [between(labels[4], labels[5]) for _, labels, _ in stacks]
    others = [between(one[1][4], other[1][5]) for one, other in itertools.pairwise(stacks)]
    assert min(own) > 0.9
    assert np.mean(others) < 0.8


def test_a_stack_is_its_slices():
    images, labels, spacing = cardiac.volume(4, 1, SIZE, slices=3, vendor="D", strength=0.5)
    for i, position in enumerate((1 / 6, 1 / 2, 5 / 6)):
        image, truth = cardiac.render(4, 1, position, SIZE, vendor="D", strength=0.5)
        np.testing.assert_array_equal(images[i], image)
        np.testing.assert_array_equal(labels[i], truth)
    assert spacing[1:] == (3.5, 3.5)  # 224 mm


def test_volumes_do_not_depend_on_how_many_slices_there_are(stacks):
    for patient in range(5):
        volumes = []
        for _, labels, spacing in (stacks[patient], cardiac.volume(4, patient, SIZE, slices=23)):
            volumes.append([(labels == number).sum() * np.prod(spacing) for number in (MUSCLE, LEFT)])
        np.testing.assert_allclose(*volumes, rtol=0.03)


def test_labels_are_equal_where_the_pixel_centres_are():
    for patient in range(5):
        small, large = (cardiac.render(1, patient, 0.3, size)[1] for size in (SIZE, 3 * SIZE))
        np.testing.assert_array_equal(small, large[1::3, 1::3])


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
def test_images_show_the_same_scene_at_another_size(vendor):
    for patient in range(5):
        small = cardiac.render(1, patient, 0.4, SIZE, vendor=vendor)[0].astype(float)
        large = cardiac.render(1, patient, 0.4, 2 * SIZE, vendor=vendor)[0].astype(float)
        large = large.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
        noise = cardiac.SCANNERS[vendor].noise
        assert np.abs(small - large).mean() < 3 + 1.2 * noise


# As in ACDC.


@pytest.mark.parametrize("number", ACDC_AREAS)
def test_areas_are_as_in_acdc(slices, number):
    areas = (slices[1] == number).mean(axis=(2, 3)) * cardiac.FIELD_OF_VIEW**2
    # The right ventricle of the apical slices is a few pixels, or none.
    np.testing.assert_allclose(np.median(areas, axis=0), ACDC_AREAS[number], rtol=0.25, atol=60)


def test_signals_are_as_in_acdc(slices):
    images, labels = slices
    for number, expected in ACDC_SIGNALS.items():
        ratios = [
            image[truth == number].mean() / image[truth == LEFT].mean()
            for image, truth in zip(images.reshape(-1, SIZE, SIZE), labels.reshape(-1, SIZE, SIZE), strict=True)
            if (truth == number).any() and (truth == LEFT).any()
        ]
        np.testing.assert_allclose(np.median(ratios), expected, atol=0.09)


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
def test_blood_is_brighter_than_myocardium_and_air_is_dark(vendor):
    ratios = []
    for patient in range(20):
        image, labels = cardiac.render(8, patient, MIDDLE, SIZE, vendor=vendor)
        ratios.append(np.median(image[labels == LEFT]) / np.median(image[labels == MUSCLE]))
        assert np.quantile(image, 0.1) < 0.6 * np.median(image[labels == MUSCLE])
    assert min(ratios) > 1.05  # a dark band may lie over the cavity
    assert np.median(ratios) > 1.5


# Vendors.


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
@pytest.mark.parametrize("strength", (0.3, 1.0))
def test_every_vendor_sees_the_same_anatomy(vendor, strength):
    for position in (0.0, *POSITIONS):
        labels = cardiac.render(5, 1, position, SIZE)[1]
        np.testing.assert_array_equal(labels, cardiac.render(5, 1, position, SIZE, vendor=vendor, strength=strength)[1])


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
def test_at_strength_0_every_vendor_is_vendor_a(vendor):
    images, _, spacing = cardiac.volume(5, 3, SIZE, slices=4)
    others, _, other_spacing = cardiac.volume(5, 3, SIZE, slices=4, vendor=vendor, strength=0)
    np.testing.assert_array_equal(images, others)
    assert spacing == other_spacing


def test_vendor_a_has_no_strength():
    np.testing.assert_array_equal(
        cardiac.render(5, 3, MIDDLE, SIZE, strength=0.2)[0], cardiac.render(5, 3, MIDDLE, SIZE)[0]
    )


@pytest.mark.parametrize("vendor", cardiac.VENDORS[1:])
def test_images_leave_vendor_a_as_strength_grows(vendor):
    for patient in range(5):
        images = [
            cardiac.render(5, patient, MIDDLE, SIZE, vendor=vendor, strength=strength)[0].astype(float)
            for strength in (0, 0.25, 0.5, 0.75, 1)
        ]
        distances = [np.abs(image - images[0]).mean() for image in images]
        assert (np.diff(distances) > 0.3).all()


def test_scanners_lie_on_a_line():
    start, end = cardiac.SCANNERS["A"], cardiac.SCANNERS["D"]
    assert cardiac.scanner("D", strength=0) == start and cardiac.scanner("D") == end
    quarter = cardiac.scanner("D", strength=0.25)
    for name in ("tissues", "resolution", "noise", "gamma", "banding", "coil", "shading", "smoothing"):
        first, second, found = (np.array(getattr(machine, name)) for machine in (start, end, quarter))
        np.testing.assert_allclose(found, first + 0.25 * (second - first))
    assert quarter.tissues.blood == pytest.approx(0.75 * start.tissues.blood + 0.25 * end.tissues.blood)


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
def test_noise_in_air_is_the_scanner_s(vendor):
    machine, corner = cardiac.SCANNERS[vendor], slice(0, SIZE // 8)
    levels = []
    for patient in range(40):
        air = rendered(3, patient, MIDDLE, SIZE)[0][corner, corner].mean() < 1.5 * cardiac.SCANNERS["A"].noise
        if air:  # in most patients; in others the chest reaches into the corner
            image = cardiac.render(3, patient, MIDDLE, SIZE, vendor=vendor)[0][corner, corner]
            levels.append(linear(image, machine))
    assert len(levels) > 15
    # the magnitude of two channels of deviation s: its mean square is 2 s^2, its mean s sqrt(pi / 2)
    assert np.sqrt(np.mean(np.square(levels)) / 2) == pytest.approx(machine.noise, rel=0.08)
    assert np.mean(levels) == pytest.approx(machine.noise * np.sqrt(np.pi / 2), rel=0.08)


@pytest.mark.parametrize("vendor", cardiac.VENDORS)
@pytest.mark.parametrize("signal", (0.0, 20.0, 120.0))
def test_noise_is_rician(vendor, signal):
    machine = cardiac.SCANNERS[vendor]
    images = [
        cardiac.acquire(np.random.default_rng(i), np.full((128, 128), signal, np.float32), machine) for i in range(16)
    ]
    levels = linear(np.array(images), machine)
    s = machine.noise
    second = signal**2 + 2 * s**2
    ratio = signal**2 / (2 * s**2)
    # mean of Rice's distribution: a Laguerre polynomial of degree 1/2, with scaled Bessel functions
    mean = (
        s
        * np.sqrt(np.pi / 2)
        * ((1 + ratio) * scipy.special.ive(0, ratio / 2) + ratio * scipy.special.ive(1, ratio / 2))
    )
    assert np.mean(levels**2) == pytest.approx(second, rel=0.03)
    assert levels.mean() == pytest.approx(mean, rel=0.02)
    assert levels.var() == pytest.approx(second - mean**2, rel=0.12)


@pytest.mark.parametrize("along_rows", (False, True))
def test_cut_off_k_space_rings_as_the_sine_integral_does(along_rows):
    resolution = (6.0, 4.0)
    machine = ideal(cardiac.SCANNERS["A"], smoothing=0.0, resolution=resolution)
    place, share = step_edge(machine, along_rows=along_rows)
    pixel = resolution[0 if along_rows else 1]
    expected = 0.5 + scipy.special.sici(np.pi * place / pixel)[0] / np.pi
    near = abs(place) < 40
    np.testing.assert_allclose(share[near], expected[near], atol=0.02)
    assert share.max() == pytest.approx(1.0895, abs=0.01)  # Gibbs


@pytest.mark.parametrize("smoothing", (1.5, 3.0))
def test_smoothing_is_a_gaussian_in_mm(smoothing):
    machine = ideal(cardiac.SCANNERS["A"], smoothing=smoothing, resolution=(0.1, 0.1))
    for size in (256, 512):
        place, share = step_edge(machine, size)
        np.testing.assert_allclose(share, scipy.special.ndtr(place / smoothing), atol=0.01)


def test_edges_are_as_wide_as_the_scanners_say():
    widths = {}
    for vendor, machine in cardiac.SCANNERS.items():
        rows, columns = (rise(*step_edge(ideal(machine), along_rows=along_rows)) for along_rows in (True, False))
        assert rows > columns
        widths[vendor] = rows
    # nothing of the frequencies above 1 / (2 pixel) and no smoothing: 0.89 pixels; with smoothing, more
    for vendor, machine in cardiac.SCANNERS.items():
        assert 0.85 * machine.resolution[0] < widths[vendor] < machine.resolution[0] + 2.57 * machine.smoothing
    assert widths["D"] > 2 * widths["A"]


def test_a_coarse_scanner_leaves_no_fine_detail():
    beyond = {}
    for vendor in ("A", "D"):
        machine = cardiac.SCANNERS[vendor]
        images = [linear(cardiac.render(2, patient, MIDDLE, 128, vendor=vendor)[0], machine) for patient in range(8)]
        spectra = scipy.fft.dctn(np.array(images), axes=(1, 2), norm="ortho") ** 2
        cut = int(1.15 * cardiac.FIELD_OF_VIEW / cardiac.SCANNERS["D"].resolution[0])
        beyond[vendor] = spectra[:, cut:].mean()
    assert beyond["D"] < 0.1 * beyond["A"]


@pytest.mark.parametrize("vendor", ("B", "C"))
def test_tissues_have_the_scanner_s_signals(vendor):
    start, machine = cardiac.SCANNERS["A"], cardiac.SCANNERS[vendor]
    ratios = []
    for patient in range(25):
        truth = rendered(6, patient, MIDDLE, 128)
        labels = truth[1]
        shown = {"A": truth[0], vendor: cardiac.render(6, patient, MIDDLE, 128, vendor=vendor)[0]}
        images = [linear(image, cardiac.SCANNERS[name]) for name, image in shown.items()]
        ratios.append([np.median(images[1][labels == n]) / np.median(images[0][labels == n]) for n in (MUSCLE, LEFT)])
    expected = machine.tissues.myocardium / start.tissues.myocardium, machine.tissues.blood / start.tissues.blood
    np.testing.assert_allclose(np.median(ratios, axis=0), expected, rtol=0.08)


def ratio_to_vendor_a(monkeypatch, patient, **changes):
    """What changes of vendor A make of the signal, where there is some; without noise or blur of its own."""
    machine = ideal(cardiac.SCANNERS["A"], smoothing=0.0, resolution=(0.1, 0.1), coil=0.0, shading=0.0)
    dim = machine._replace(tissues=cardiac.Tissues(*(60.0 for _ in machine.tissues)))  # so that nothing is clipped
    monkeypatch.setattr(cardiac, "SCANNERS", {"A": dim, "B": dim._replace(**changes)})
    before, after = (cardiac.render(6, patient, MIDDLE, 128, vendor=vendor)[0].astype(float) for vendor in "AB")
    return np.where(before > 50, after / np.maximum(before, 1), np.nan)


def test_the_coil_lifts_the_chest_and_leaves_the_middle(monkeypatch):
    for patient in range(5):
        ratio = ratio_to_vendor_a(monkeypatch, patient, coil=1.0)
        assert np.nanmedian(ratio[60:68, 60:68]) == pytest.approx(1, abs=0.08)
        # the coil lies on the left and the field is highest there; 0.66 is what it has more than the middle
        assert 1.25 < np.nanmax(ratio) < np.exp(0.66) + 0.05
        assert np.nanmean(ratio[:, :40]) > np.nanmean(ratio[:, -40:]) + 0.1


def test_shading_is_smooth_and_differs_between_patients(monkeypatch):
    fields = [np.log(ratio_to_vendor_a(monkeypatch, patient, shading=0.2)) for patient in range(12)]
    assert np.nanstd(fields) == pytest.approx(0.2, rel=0.35)
    assert np.nanmean([np.nanstd(np.diff(field[:, ::2], axis=1)) for field in fields]) < 0.03
    assert np.nanstd(np.nanmean(fields, axis=(1, 2))) > 0.05


def test_bands_are_dark_and_narrow(monkeypatch):
    for patient in range(5):
        ratio = ratio_to_vendor_a(monkeypatch, patient, banding=0.6)
        assert np.nanmin(ratio) == pytest.approx(0.4, abs=0.06)
        assert np.nanmax(ratio) < 1.01
        assert 0.1 < np.nanmean(ratio < 0.7) < 0.4


# Misuse.


@pytest.mark.parametrize(
    ("options", "message"),
    [({"vendor": "E"}, "vendor is 'E'; choose one of A, B, C, D"), ({"strength": 1.5}, "strength is 1.5")],
)
def test_scanners_that_do_not_exist_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        cardiac.render(0, 0, MIDDLE, SIZE, **options)


@pytest.mark.parametrize("position", (-0.1, 1.1, float("nan")))
def test_positions_outside_of_the_heart_are_refused(position):
    with pytest.raises(ValueError, match="position is"):
        cardiac.render(0, 0, position, SIZE)


def test_what_has_no_pixels_is_refused():
    with pytest.raises(ValueError, match="size is 0"):
        cardiac.render(0, 0, MIDDLE, 0)
    with pytest.raises(ValueError, match="slices is 0"):
        cardiac.volume(0, 0, SIZE, slices=0)
    with pytest.raises(ValueError, match=r"shape \(4, 5\)"):
        cardiac.acquire(np.random.default_rng(0), np.zeros((4, 5)), cardiac.SCANNERS["A"])
