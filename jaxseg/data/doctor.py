"""What is wrong with a data set, before training on it: files, masks, splits, and shortcuts that a network may learn.

Errors make a data set unusable or its scores meaningless; they stop its preparation. Warnings are what a
person should know; some of them (`diagnosis.SHORTCUTS`) are cues that a network may learn instead of the anatomy:
where masks lie (Lin, Weng et al. 2024, section 4), marks in the images (section 3), and how the intensities of domains
differ.

Every number is a plain statistic of the files; the thresholds are the constants below.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from jaxseg.data import case_facts, raw_cases, threads
from jaxseg.data.case_facts import GRID, Facts
from jaxseg.data.diagnosis import Finding, Pictured, Report
from jaxseg.data.raw_cases import Contents, FileProblems, Found, Loaded, RawCase
from jaxseg.errors import InputError
from jaxseg.metrics import ranking

Load = Callable[..., Loaded]

_BORDER = (
    4  # cells of the grid, an eighth of the side: about the 30 of 256 pixels that the shortcut paper calls the border
)
_BLIND_DICE = 0.4  # of a mask that never looks at the image; above it, position alone tells a lot
# Density of the foreground at the border, as a share of that in the whole image; below, it is rare there. The masks of
# ISIC 2017, whose border networks learn according to the shortcut paper, have 0.18 (training) and 0.24 (test).
_BORDER_DENSITY = 0.25
_DOMAIN_AUROC = 0.9  # of telling domains by one statistic of an image; above it, intensity alone is enough
_DOMAIN_RANGE = 4.0  # ratio of the intensity ranges of two domains
_DOMAIN_CASES = 5  # that a domain must have to be compared
_OVERLAY_SHARE = 2e-4  # of an image's pixels; from this share on it counts as one with overlays
_OVERLAY_CASES = 400  # images that are searched for overlays, evenly spread: the search takes longer than all the rest
_OVERLAY_IMAGES = 0.02  # share of images with overlays that is worth a warning
_OVERLAY_LINKED = 0.1  # from this share on it is a shortcut warning, if they correlate with the label or the domain
_OVERLAY_COMMON = 1 / 3  # from this share on it is a shortcut warning whether or not they do
_SAME_PLACE = 0.5  # of the images; marks in a cell of the grid that has them in that many belong to the machine
_NEAR_RATIO = 3.0  # how many times denser they must lie there than in the whole image to mark the outline
_WITHOUT = {  # what follows where a split lacks a class
    "train": "a network cannot learn that, and Dice measures nothing there",
    "validation": "that has no part in choosing the best checkpoint",
    "test": "Dice is undefined there",
}
_NAMED = 5  # classes in a message, or files
_CLIPPED = 0.5  # of a case's foreground; an object so bright that less of it is white still has its outline
_SPACING_TOLERANCE = 0.01  # relative; headers are rounded
_LEAK = 0.01  # of the smallest split; more images that are in another one too make a data set unusable


def examine(name: str, found: Found, load: Load, *, in_threads: bool = True, pictures: int = 0) -> Report:
    """Reads every file of a data set once and says what is wrong.

    Args:
      name: of the data set.
      found: its cases.
      load: reads one; as `records.Builder.load`.
      in_threads: whether it mostly runs with the interpreter's lock released.
      pictures: how many images with marks are shown at most.
    """
    findings = [Finding("error", "files", "files are missing or misnamed", tuple(found.problems))] * bool(
        found.problems
    )
    findings += _repeated_names(found.cases)
    searched = set(np.linspace(0, len(found.cases) - 1, min(_OVERLAY_CASES, len(found.cases)), dtype=int).tolist())

    def facts(index: int) -> Facts | tuple[str, ...]:
        case = found.cases[index]
        try:
            return case_facts.of_case(
                case, load(case, at_least=case_facts.AT_LEAST), found.contents, search=index in searched
            )
        except FileProblems as problem:
            return problem.lines
        except Exception as error:  # one odd case must not hide problems of the others
            text = str(error).partition("\n")[0]
            return (f"{case.place}: cannot be examined ({type(error).__name__}: {text}); leave it out",)

    indices = range(len(found.cases))
    if in_threads:
        results = list(threads.in_threads(facts, indices, "checking"))
    else:
        results = list(threads.progress(map(facts, indices), "checking", 0, len(indices)))
    bad = [line for result in results if not isinstance(result, Facts) for line in result]
    findings += [Finding("error", "contents of files", "files cannot be used", tuple(bad))] * bool(bad)
    good = [(case, result) for case, result in zip(found.cases, results, strict=True) if isinstance(result, Facts)]
    if not found.cases and not found.problems:
        findings.append(Finding("error", "files", "there is no case at all; name the folder that holds the files"))
    cases, dealt = _assigned(good) if good else ([], [])
    if not (found.problems or bad):  # else too few may be left, which is not a separate problem
        findings += dealt
    findings += _leaks(cases, [result for _, result in good])
    if good:
        findings += _about_splits(found.cases, cases)
        findings += _about_classes(cases, [result for _, result in good], found.contents)
        findings += _about_depth(good, found.contents)
        findings += _about_clipping(good)
        findings += _about_masks(good, found.contents)
        findings += _about_geometry(good)
        findings += _about_position(good)
        findings += _about_domains(good, found.contents)
        findings += _about_overlays(good)
    findings.sort(key=lambda finding: finding.level != "error")  # stable
    usable = not any(finding.level == "error" for finding in findings)
    orientation = _orientation(good) if found.contents.volumes else ""
    dtype = _dtype([facts for _, facts in good], found.contents)
    pictured = _pictured([case for case, _ in _marked(_searched(good))], load, found.contents, pictures) if good else ()
    return Report(name, cases if usable else (), findings, _numbers(cases, good), orientation, dtype, pictured)


def _dtype(good: Sequence[Facts], contents: Contents) -> str:
    """In which all images are stored: 8 bits where their files have no more."""
    if contents.scaling is None or all(facts.eight_bits for facts in good):
        return "uint8"
    ends = min(facts.lowest for facts in good), max(facts.highest for facts in good)
    return raw_cases.storage(*ends, whole=all(facts.whole for facts in good))


def _repeated_names(cases: Sequence[RawCase]) -> list[Finding]:
    first: dict[str, RawCase] = {}
    lines = []
    for case in cases:
        if case.case in first:
            remedy = "give each a name of its own" if case.split == first[case.case].split else "keep it in one split"
            lines.append(f"{case.place}: the same case is in {first[case.case].place} ({case.case}); {remedy}")
        first.setdefault(case.case, case)
    return [Finding("error", "case names", "cases have the same name", tuple(lines))] if lines else []


def _twins(good: Sequence[tuple[RawCase, Facts]]) -> list[list[tuple[RawCase, Facts]]]:
    groups = defaultdict(list)
    for case, facts in good:
        if not facts.blank:
            groups[facts.digest].append((case, facts))
    return [group for group in groups.values() if len(group) > 1]


def _assigned(good: Sequence[tuple[RawCase, Facts]]) -> tuple[list[RawCase], list[Finding]]:
    """The cases in splits; images that are the same are kept together, as if they showed one patient."""
    owner: dict[str, str] = {}

    def root(patient: str) -> str:
        while patient in owner:
            patient = owner[patient]
        return patient

    for group in _twins(good):
        first = root(group[0][0].patient)
        for case, _ in group[1:]:
            if root(case.patient) != first:
                owner[root(case.patient)] = first
    cases = [case for case, _ in good]
    try:
        dealt = raw_cases.assigned([case._replace(patient=root(case.patient)) for case in cases])
    except InputError as error:
        return [], [Finding("error", "splits", str(error))]
    split = {case.case: case.split for case in dealt}
    return [case._replace(split=split[case.case]) for case in cases], []


def _leaks(cases: Sequence[RawCase], facts: Sequence[Facts]) -> Iterator[Finding]:
    """Patients and images in more than one split: the network would be tested on training data."""
    if not cases:
        return
    places: dict[str, dict[str | None, RawCase]] = defaultdict(dict)
    for case in cases:
        places[case.patient].setdefault(case.split, case)
    lines = [
        f"{other.place}: shows {patient}, who is in {split} too ({first.place}); keep a patient in one split"
        for patient, where in places.items()
        for (split, first), *others in [where.items()]
        for _, other in others
    ]
    if lines:
        yield Finding("error", "patients", "patients are in more than one split", tuple(lines))
    across, within = [], []
    for group in _twins(list(zip(cases, facts, strict=True))):
        (first, one), *others = group
        for case, other in others:
            mask = "the same mask" if one.labels_digest == other.labels_digest else "another mask"
            same = f"{case.place}: shows the same pixels as {first.place}, with {mask}"
            if case.split != first.split:
                across.append(f"{same}, one is in {case.split}, one in {first.split}; leave one of them out")
            else:
                within.append(f"{same}; both are in {case.split}")
    if across:
        # official challenges have a few; more make the scores of the smaller split meaningless
        smallest = min(Counter(case.split for case in cases).values())
        level = "error" if len(across) > _LEAK * smallest else "warning"
        yield Finding(level, "leaks", f"images are in more than one split: {len(across)}", tuple(across))
    if within:
        yield Finding("warning", "duplicates", f"images repeat others: {len(within)}", tuple(within))


def _about_splits(given: Sequence[RawCase], dealt: Sequence[RawCase]) -> Iterator[Finding]:
    """Whether cases that came with a split are now in another one."""
    wanted = {case.case: case.split for case in given}
    moved = [case for case in dealt if wanted[case.case] not in (None, case.split)]
    if moved:
        named = " and ".join(sorted({str(split) for split in wanted.values()}))
        yield Finding(
            "warning", "splits", f"only {named} came with the data: {len(moved)} cases of train were reassigned"
        )


def _about_classes(cases: Sequence[RawCase], facts: Sequence[Facts], contents: Contents) -> Iterator[Finding]:
    """Classes that a split lacks and another has, and splits without training."""
    present: dict[str | None, set[int]] = {
        split: set() for split in raw_cases.SPLITS if split in {c.split for c in cases}
    }
    for case, one in zip(cases, facts, strict=False):  # without cases, none were assigned
        present[case.split] |= one.present
    if present and "train" not in present:
        text = f"all cases are for {' and '.join(map(str, present))}: networks can be evaluated on them, not trained"
        yield Finding("warning", "no training cases", text)
        return  # missing classes only matter in the data set that is trained on
    seen = set().union(*present.values())
    for split, classes in present.items():
        missing = [f"{k} {contents.class_names[k]}" for k in sorted(seen - classes)]
        if missing:
            rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            named = f"class{'es' * (len(missing) > 1)} {', '.join(missing[:_NAMED])}{rest}"
            yield Finding("warning", f"classes of {split}", f"no {split} mask has the {named}: {_WITHOUT[str(split)]}")


def _about_depth(good: Sequence[tuple[RawCase, Facts]], contents: Contents) -> Iterator[Finding]:
    """Files of 8 bits among others: some would be scaled wrongly."""
    if contents.volumes and not contents.one_depth:
        return  # official data sets use any type that fits, for one scaling
    eight, deep = ([item for item in good if wanted(item[1])] for wanted in (_is_stored_as_8_bits, _is_deep))
    if eight and deep:
        rare, kind, usual = (eight, "8 bits", "more") if len(eight) < len(deep) else (deep, "more than 8 bits", "8")
        lines = tuple(f"{case.place}: has {kind}, most have {usual}; save all alike" for case, _ in rare)
        yield Finding("error", "bit depth", "intensities are on different scales", lines)


def _is_stored_as_8_bits(facts: Facts) -> bool:
    return facts.eight_bits


def _is_deep(facts: Facts) -> bool:
    return not facts.gray_levels  # 0 to 255 are the same in 16 bits


def _about_clipping(good: Sequence[tuple[RawCase, Facts]]) -> Iterator[Finding]:
    """Foreground whose levels are lost where images are scaled to 8 bits."""
    clipped = [(case, facts) for case, facts in good if facts.clipped >= _CLIPPED]
    if clipped:
        names = ", ".join(str(case.place) for case, _ in clipped[:_NAMED])
        names += f" and {len(clipped) - _NAMED} more" if len(clipped) > _NAMED else ""
        summary = (
            f"in {len(clipped)} of {len(good)} images most of the foreground comes out all black or all white, though "
            f"its intensities differ; scale the images to 0 to 255 yourself and save them with 8 bits: {names}"
        )
        lines = tuple(f"{case.place}: {facts.clipped:.0%} of the foreground" for case, facts in clipped)
        yield Finding("warning", "clipped foreground", summary, lines)


def _about_masks(good: Sequence[tuple[RawCase, Facts]], contents: Contents) -> Iterator[Finding]:
    def named(check: str, summary: str, wrong: Callable[[Facts], bool]) -> Iterator[Finding]:
        lines = tuple(str(case.mask or case.place) for case, facts in good if wrong(facts))
        if lines:
            yield Finding("warning", check, f"{len(lines)} of {len(good)} {summary}", lines)

    yield from named("empty masks", "masks have no foreground: Dice is undefined there", lambda f: f.foreground == 0)
    yield from named("full masks", "masks are foreground everywhere", lambda f: f.foreground == 1)
    lines = tuple(str(case.place) for case, facts in good if facts.blank)
    if lines:
        yield Finding("warning", "blank images", f"{len(lines)} of {len(good)} images have one value everywhere", lines)
    seen = frozenset().union(*(facts.present for _, facts in good))
    for k, name in enumerate(contents.class_names):
        if k and k not in seen:
            yield Finding("warning", "classes", f"no mask has the class {k} {name}: a network cannot learn it")


def _about_geometry(good: Sequence[tuple[RawCase, Facts]]) -> Iterator[Finding]:
    channels = Counter(facts.channels for _, facts in good)
    if len(channels) > 1:
        usual = channels.most_common(1)[0][0]
        lines = tuple(f"{case.place}: {facts.channels}" for case, facts in good if facts.channels != usual)
        yield Finding("warning", "channels", f"{len(lines)} images do not have {usual} channels", lines)
    lines = tuple(note for _, facts in good for note in facts.notes)
    if lines:
        yield Finding("warning", "geometry", "check what the headers say about where pixels lie", lines)
    yield from _about_orientation(good)
    known = [(case, facts) for case, facts in good if not any(map(math.isnan, facts.spacing))]
    if known:
        of_plane = np.array([facts.spacing[-2:] for _, facts in known])
        of_slices = np.array([facts.spacing[0] for _, facts in known if len(facts.spacing) == 3])
        for what, spacing in (("pixels are", of_plane), ("slices lie", of_slices)):
            if spacing.size and spacing.max() > 2 * spacing.min():
                sizes = f"{spacing.min():.3g} to {spacing.max():.3g} mm"
                how = "large" if what == "pixels are" else "apart"
                text = f"{what} {sizes} {how}: the same organ differs in size"
                yield Finding("warning", "spacing", text)
        wrong = tuple(f"{case.place}: {facts.spacing}" for case, facts in known if min(facts.spacing) <= 0)
        if wrong:
            yield Finding("warning", "spacing", "pixel sizes are not positive; correct the headers", wrong)
        wrong = tuple(
            f"{case.mask}: {facts.mask_spacing}, its image {facts.spacing}"
            for case, facts in known
            if facts.mask_spacing
            and not any(map(math.isnan, facts.mask_spacing))
            and not np.allclose(facts.mask_spacing, facts.spacing, rtol=_SPACING_TOLERANCE)
        )
        if wrong:
            yield Finding("warning", "spacing", "masks and their images disagree on the size of a pixel", wrong)


def _orientation(good: Sequence[tuple[RawCase, Facts]]) -> str:
    """The orientation of most images; empty where most do not tell."""
    return Counter(facts.orientation for _, facts in good).most_common(1)[0][0] if good else ""


def _about_orientation(good: Sequence[tuple[RawCase, Facts]]) -> Iterator[Finding]:
    most = _orientation(good)
    others = [facts for _, facts in good if facts.orientation != most]
    if not others:
        return
    lines = tuple(
        f"{case.place}: {facts.orientation or 'does not tell'}" for case, facts in good if facts.orientation != most
    )
    mute = any(not facts.orientation for facts in others)
    if not most:
        what = f"most images do not tell their orientation, {len(others)} do"
    else:
        what = f"{len(others)} images are not oriented {most} like most" + (", or do not tell" if mute else "")
    yield Finding("warning", "orientation", f"{what}: {_what_becomes(most, others)}", lines)


def _what_becomes(most: str, others: Sequence[Facts]) -> str:
    """What happens to images oriented unlike most: volumes that tell are turned, nothing else is."""
    if len(others[0].size) == 2:
        return "pictures are taken as they lie"
    if not most:
        return "all are taken as they lie"
    kinds = {bool(facts.orientation) for facts in others}
    texts = {True: "they are turned to match", False: "they are taken as they lie"}
    return (
        texts[kinds.pop()] if len(kinds) == 1 else "those that tell are turned to match, the others taken as they lie"
    )


def _about_position(good: Sequence[tuple[RawCase, Facts]]) -> Iterator[Finding]:
    stats = _position(good)
    if stats is None:
        return
    if stats["blind Dice"] > _BLIND_DICE:
        yield Finding(
            "warning",
            "position",
            f"one fixed mask that never looks at the image has a Dice of {stats['blind Dice']:.2f} (the median mask "
            f"is {stats['median offset']:.2f} half sides off the middle): a network can learn where, not what",
        )
    if stats["density at the border"] < _BORDER_DENSITY:
        yield Finding(
            "warning",
            "border",
            f"foreground is {stats['density at the border']:.3f} times as dense at the border as in the whole image, "
            f"{stats['touch the border']:.0%} of masks touch it: zero padding shows a network where that is",
        )


def _position(good: Sequence[tuple[RawCase, Facts]]) -> dict[str, float] | None:
    maps = np.array([facts.where for _, facts in good if facts.foreground > 0])
    if not len(maps):
        return None
    mean = maps.mean(0)
    ring = np.ones_like(mean, bool)
    ring[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    axis = (2 * np.arange(GRID) + 1) / GRID - 1
    total = maps.sum((1, 2))
    centres = np.stack([(maps.sum(2) @ axis) / total, (maps.sum(1) @ axis) / total])
    return {
        "median offset": float(np.median(np.hypot(*centres))),
        "touch the border": float(np.mean([facts.touches for _, facts in good if facts.foreground > 0])),
        "density at the border": float(mean[ring].mean() / mean.mean()),
        "blind Dice": _blind_dice(maps, mean),
    }


def _blind_dice(maps: np.ndarray, mean: np.ndarray) -> float:
    """The best mean Dice of one mask for all cases, among those that the mean mask gives at any threshold."""
    order = np.argsort(-mean, axis=None)
    inside = np.cumsum(maps.reshape(len(maps), -1)[:, order], 1)
    size = np.arange(1, mean.size + 1)
    return float((2 * inside / (size + maps.sum((1, 2))[:, None])).mean(0).max())


def _about_domains(good: Sequence[tuple[RawCase, Facts]], contents: Contents) -> Iterator[Finding]:
    of_domain = defaultdict(list)
    for case, facts in good:
        of_domain[case.domain].append(facts)
    groups = {domain: group for domain, group in sorted(of_domain.items()) if len(group) >= _DOMAIN_CASES}
    if len(groups) < 2:
        return
    tops = {domain: float(np.median([facts.top for facts in group])) for domain, group in groups.items()}
    if min(tops.values()) >= 0 and max(tops.values()) > _DOMAIN_RANGE * min(tops.values()):
        lines = tuple(f"{domain}: {top:.4g}" for domain, top in tops.items())
        summary = "the intensities in the files have other ranges in other domains (median of the 99th percentiles)"
        yield Finding("warning", "intensity ranges", summary, lines)
    told = []
    # of two domains, one line says it all
    for domain, group in list(groups.items())[: None if len(groups) > 2 else 1]:
        rest = [facts for other, members in groups.items() if other != domain for facts in members]
        for number in ("mean", "spread"):
            ours, theirs = (np.array([getattr(facts, number) for facts in part]) for part in (group, rest))
            auroc = ranking.auroc(theirs, ours)
            if max(auroc, 1 - auroc) > _DOMAIN_AUROC:
                told.append(
                    f"{domain}: {number} {np.median(ours):.0f}, elsewhere {np.median(theirs):.0f} (AUROC "
                    f"{max(auroc, 1 - auroc):.2f})"
                )
    if told:
        summary = "intensities alone tell domains apart: a network may take one scanner's contrast for anatomy"
        yield Finding("warning", "intensity", summary, tuple(told))
    missing = [
        f"{domain}: no mask has {contents.class_names[k]}"
        for domain, group in groups.items()
        for k in range(1, len(contents.class_names))
        if not any(k in facts.present for facts in group)
        and any(k in facts.present for other in groups.values() for facts in other)
    ]
    if missing:
        summary = "some domains lack classes that others have: their absence is a matter of labelling, not of anatomy"
        yield Finding("warning", "classes of domains", summary, tuple(missing))


def _about_overlays(good: Sequence[tuple[RawCase, Facts]]) -> Iterator[Finding]:
    searched = _searched(good)
    # what is at the same place in most images belongs to the machine, unless it correlates with something
    if searched and not list(_links(searched, _marked(searched), outline=False)):
        maps = np.array([facts.overlay_map for _, facts in searched])
        # with the neighbouring cells, into which a mark may reach
        fixed = ndimage.binary_dilation((maps > 0).mean(0) >= _SAME_PLACE, np.ones((3, 3)))
        held = int((maps[:, fixed].sum(1) >= _OVERLAY_SHARE).sum())
        if held:
            where = f"in {held} of {len(searched)} images"
            yield Finding("warning", "fixed marks", f"a scale, logo or the like at the same place {where}")
            searched = [
                (case, facts._replace(overlay=float(facts.overlay_map[~fixed].sum()))) for case, facts in searched
            ]
    marked = _marked(searched)
    if len(marked) < max(1, _OVERLAY_IMAGES * len(searched)):
        return
    links = list(_links(searched, marked))
    where = f"in {len(marked)} of {len(searched)} images"
    if len(searched) < len(good):
        where += " that were searched"
    lines = tuple(f"{case.place}: {facts.overlay:.2%} of the pixels" for case, facts in marked)
    if len(marked) >= (_OVERLAY_LINKED if links else _OVERLAY_COMMON) * len(searched):
        yield Finding("warning", "overlays", "; ".join([f"marks or text {where}", *links]), lines)
    else:
        summary = f"marks or text, or thin bright anatomy, {where}: look at them"
        yield Finding("warning", "possible overlays", summary, lines)


def _searched(good: Sequence[tuple[RawCase, Facts]]) -> list[tuple[RawCase, Facts]]:
    """Those whose overlays are known: gray ones, if most are gray."""
    if np.mean([facts.gray for _, facts in good]) < 0.5:
        return []  # strokes are found by their colour or sharpness; photographs and stains have both
    return [(case, facts) for case, facts in good if facts.gray and not math.isnan(facts.overlay)]


def _marked(searched: Sequence[tuple[RawCase, Facts]]) -> list[tuple[RawCase, Facts]]:
    return [(case, facts) for case, facts in searched if facts.overlay >= _OVERLAY_SHARE]


def _pictured(marked: Sequence[RawCase], load: Load, contents: Contents, most: int) -> tuple[Pictured, ...]:
    """Some of the images with marks, evenly over them, which are searched again."""
    shown = []
    for i in np.unique(np.linspace(0, len(marked) - 1, min(most, len(marked)), dtype=int)):
        image = raw_cases.with_channels(load(marked[i], at_least=case_facts.AT_LEAST).image, contents.channels)
        assert image is not None  # it was examined
        pixels = raw_cases.as_uint8(image, contents.scaling)
        shown.append(Pictured(marked[i].case, pixels, case_facts.drawn_marks(pixels)))
    return tuple(shown)


def _links(
    searched: Sequence[tuple[RawCase, Facts]], marked: Sequence[tuple[RawCase, Facts]], *, outline: bool = True
) -> Iterator[str]:
    """How overlays correlate with the label's outline (if asked), its presence, and the domain, where they do."""
    placed = [] if not outline else [facts for _, facts in marked if not math.isnan(facts.overlay_near)]
    if placed:
        near, area = (np.mean([getattr(facts, name) for facts in placed]) for name in ("overlay_near", "area_near"))
        if near > _NEAR_RATIO * area:
            yield f"they mark the outline: {near:.0%} of their pixels lie near it, which is {area:.0%} of the image"
    for question, groups in (
        ("foreground", _rates(searched, lambda case, facts: "with" if facts.present else "without")),
        ("domain", _rates(searched, lambda case, facts: case.domain)),
    ):
        if len(groups) > 1 and max(groups.values()) - min(groups.values()) > 0.2:
            rates = ", ".join(f"{name or 'none'} {rate:.0%}" for name, rate in groups.items())
            yield f"they go with the {question}: {rates}"


def _rates(searched: Sequence[tuple[RawCase, Facts]], group: Callable[[RawCase, Facts], str]) -> dict[str, float]:
    """Share of images with overlays in every group that is large enough."""
    members = defaultdict(list)
    for case, facts in searched:
        members[group(case, facts)].append(facts.overlay >= _OVERLAY_SHARE)
    return {name: float(np.mean(m)) for name, m in sorted(members.items()) if len(m) >= _DOMAIN_CASES}


def _numbers(cases: Sequence[RawCase], good: Sequence[tuple[RawCase, Facts]]) -> dict[str, Any]:
    splits, domains = Counter(case.split for case in cases), Counter(case.domain for case, _ in good)
    sizes = Counter(facts.size for _, facts in good)
    numbers: dict[str, Any] = {
        "cases": len(good),
        "patients": len({case.patient for case, _ in good}),
        "splits": {str(split): splits[split] for split in raw_cases.SPLITS if splits[split]},
    }
    if set(domains) != {""}:
        numbers["domains"] = dict(sorted(domains.items()))
    if good:
        numbers["sizes"] = {raw_cases.size_text(size): count for size, count in sizes.most_common(4)}
        if len(sizes) > len(numbers["sizes"]):
            numbers["sizes"]["other"] = len(good) - sum(numbers["sizes"].values())
        numbers["foreground"] = float(np.mean([facts.foreground for _, facts in good]))
        numbers |= _position(good) or {}
        numbers["searched for overlays"] = len(_searched(good))
    return numbers
