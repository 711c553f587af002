from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shared.vision.bundles import Bundle, load_bundle
from shared.vision.golden import (
    Features,
    GoldenMemory,
    GoldenPicture,
    coreset,
    distances,
    fit_whitening,
    fused,
    golden_features,
    leave_one_out,
    remember,
    unlikeness,
)
from shared.vision.inspector import Inspector
from shared.vision.scores import picture_score
from tests.shared.vision.tiny_bundle import write_tiny_bundle

SEEDS = st.integers(0, 10_000)
EXACT = "donot_use_mm_for_euclid_dist"
BOTH_WAYS = pytest.mark.parametrize("aligned", [False, True], ids=["free", "aligned"])


def random_features(seed: int, channels: int = 8) -> Features:
    """Two stages, as of one product: every direction is within a right angle of every other."""
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(side, side, channels, generator=random) for side in (12, 6))


def like(features: Features, seed: int, noise: float = 0.05) -> Features:
    """Another piece of the same product, in the same place."""
    random = torch.Generator().manual_seed(seed)
    return tuple(stage + noise * torch.randn(stage.shape, generator=random) for stage in features)


def unseen(features: Features) -> Features:
    """At a right angle to all there was: what was not there is, and the other way round."""
    return tuple(torch.cat([torch.zeros_like(stage), stage], dim=-1) for stage in features)


def widened(features: Features) -> Features:
    """The same with as many channels as `unseen` has."""
    return tuple(torch.cat([stage, torch.zeros_like(stage)], dim=-1) for stage in features)


def made_of(*pictures: Features, aligned: bool = False, bundle: str = "tiny 1", rough: float = 0.3) -> GoldenMemory:
    """Named "0", "1", ..."""
    seen = [GoldenPicture(str(n), features, torch.full((24, 24), rough)) for n, features in enumerate(pictures)]
    return remember(seen, bundle=bundle, object_name="nut", aligned=aligned)


def test_features_are_the_pictures_own_and_the_maps_at_stride_eight_or_coarser() -> None:
    images, fine, coarse = torch.rand(1, 3, 64, 64), torch.rand(1, 16, 16, 4), torch.rand(1, 4, 4, 16)
    own, pooled, kept = golden_features(images, [fine, coarse])
    assert own.shape[:2] == pooled.shape[:2] == (8, 8)
    torch.testing.assert_close(own[2, 3, :3], images[0, :, 16:24, 24:32].mean((1, 2)))
    torch.testing.assert_close(pooled[0, 0], fine[0, :2, :2].mean((0, 1)))
    torch.testing.assert_close(kept, coarse[0])


@given(seed=SEEDS)
def test_whitened_features_have_mean_zero_and_covariance_one(seed: int) -> None:
    mixing = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)) + torch.eye(5)
    pictures = [torch.randn(12, 12, 5, generator=torch.Generator().manual_seed(seed + n)) @ mixing for n in (1, 2)]
    white = torch.cat([fit_whitening(pictures)(one).flatten(0, 1) for one in pictures])
    torch.testing.assert_close(white.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
    covariance = torch.cov(white.T)
    assert covariance.diagonal().max() < 1.01  # less where golden pictures hardly vary
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.01


def test_whitening_of_pictures_without_any_variance_stays_finite() -> None:
    memory = made_of((torch.ones(12, 12, 64),), (torch.ones(12, 12, 64),))
    assert unlikeness(memory, (torch.ones(12, 12, 64),), (24, 24)).max() == 0
    assert torch.isfinite(unlikeness(memory, (torch.zeros(12, 12, 64),), (24, 24))).all()


@BOTH_WAYS
def test_remember_keeps_names_in_order_and_all_patches(aligned: bool) -> None:
    first, second = random_features(1), random_features(2)
    pictures = [GoldenPicture(name, one, torch.full((4, 4), 0.3)) for name, one in (("b", first), ("a", second))]
    memory = remember(pictures, bundle="tiny 1", object_name="nut", aligned=aligned)
    assert memory.pictures == ("a", "b")
    assert memory.rough_far == pytest.approx(0.3)
    assert memory.aligned == aligned
    for stage, side in zip(memory.stages, (12, 6), strict=True):
        assert stage.patches.shape == ((2, side, side, 8) if aligned else (2 * side * side, 8))
        assert 0 <= stage.near <= stage.far


@BOTH_WAYS
@pytest.mark.parametrize("size", [(24, 24), (5, 7)], ids=str)
def test_what_was_seen_is_not_unlike_and_what_was_not_is(aligned: bool, size: tuple[int, int]) -> None:
    first = random_features(1)
    memory = made_of(widened(first), widened(like(first, 2)), widened(like(first, 3)), aligned=aligned)
    seen = unlikeness(memory, widened(first), size)
    assert seen.shape == size
    assert seen.max() < 1e-3
    assert unlikeness(memory, unseen(first), size).min() > 1


@BOTH_WAYS
def test_unlikeness_shows_the_one_patch_that_was_not_there(aligned: bool) -> None:
    first = widened(random_features(1))
    memory = made_of(first, like(first, 2), like(first, 3), aligned=aligned)
    spoiled = tuple(stage.clone() for stage in first)
    for stage, side in zip(spoiled, (12, 6), strict=True):
        stage[side // 4, side // 2] = torch.tensor([0.0] * 8 + [1.0] * 8)
    heat = unlikeness(memory, spoiled, (12, 12))
    assert divmod(int(heat.argmax()), 12)[0] in (3, 4)
    assert divmod(int(heat.argmax()), 12)[1] in (6, 7)
    assert heat[8:, :4].max() < 1e-3


@BOTH_WAYS
def test_leave_one_out_never_sees_its_own_picture(aligned: bool) -> None:
    own, others = torch.zeros(12, 12, 4), torch.ones(12, 12, 4)
    for one in leave_one_out([own, others], aligned=aligned):
        torch.testing.assert_close(one, torch.ones(12, 12))
    for one in leave_one_out([own, own, others], aligned=aligned)[:2]:
        torch.testing.assert_close(one, torch.zeros(12, 12))


@given(seed=SEEDS)
def test_leave_one_out_is_the_distance_to_all_others(seed: int) -> None:
    stages = [random_features(seed + n)[1] for n in range(4)]
    for number, found in enumerate(leave_one_out(stages)):
        others = torch.cat([one.flatten(0, 1) for n, one in enumerate(stages) if n != number])
        directly = torch.cdist(stages[number].flatten(0, 1), others, compute_mode=EXACT).amin(1) / 8**0.5
        torch.testing.assert_close(found.flatten(), directly, atol=1e-3, rtol=0)


@given(seed=SEEDS)
@BOTH_WAYS
def test_more_golden_pictures_never_raise_a_distance(aligned: bool, seed: int) -> None:
    asked, first, second = (random_features(seed + n)[0] for n in range(3))
    fewer, more = torch.stack([first]), torch.stack([first, second])
    if not aligned:
        fewer, more = fewer.flatten(0, 2), more.flatten(0, 2)
    assert (distances(asked, more) - distances(asked, fewer)).max() < 1e-5


def far_ends(patches: torch.Tensor, centres: torch.Tensor) -> float:
    """The longest way from a patch to its nearest centre."""
    return float(torch.cdist(patches, centres, compute_mode=EXACT).amin(1).max())


@given(seed=SEEDS, count=st.integers(1, 4))
def test_coreset_is_within_twice_of_the_best_there_is(seed: int, count: int) -> None:
    patches = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
    best = min(far_ends(patches, patches[list(some)]) for some in combinations(range(9), count))
    assert far_ends(patches, coreset(patches, count)) <= 2 * best + 1e-5


def test_coreset_covers_better_the_larger_it_is_and_keeps_what_fits() -> None:
    patches = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    chosen = [coreset(patches, count) for count in (1, 2, 8, 32, 128, 200, 500)]
    covers = [far_ends(patches, one) for one in chosen]
    assert covers == sorted(covers, reverse=True)
    assert [len(one) for one in chosen] == [1, 2, 8, 32, 128, 200, 200]
    assert covers[-1] == 0
    assert len(torch.unique(chosen[4], dim=0)) == 128


def with_piece(row: int, column: int) -> torch.Tensor:
    """20 x 20 patches of one material and a piece of another of 2 x 2; the reach is then one patch."""
    stage = torch.zeros(20, 20, 2)
    stage[..., 0] = 1
    stage[row : row + 2, column : column + 2] = torch.tensor([0.0, 1.0])
    return stage


@pytest.mark.parametrize(
    ("place", "free", "aligned"),
    [((5, 5), 0, 0), ((6, 4), 0, 0), ((8, 5), 0, 1), ((14, 12), 0, 1)],
    ids=["in its place", "within reach", "beyond reach", "far away"],
)
def test_aligned_memory_alone_finds_what_is_out_of_place(place: tuple[int, int], free: float, aligned: float) -> None:
    golden = torch.stack([with_piece(5, 5), with_piece(5, 5)])
    for patches, apart in ((golden.flatten(0, 2), free), (golden, aligned)):
        found = distances(with_piece(*place), patches)
        assert found.shape == (20, 20)
        assert found.max() == pytest.approx(apart, abs=1e-3)
        assert found[place] == pytest.approx(apart, abs=1e-3)


def test_aligned_memory_takes_a_piece_at_the_edge() -> None:
    assert distances(with_piece(0, 18), with_piece(1, 17)[None]).max() < 1e-3


@BOTH_WAYS
def test_one_golden_picture_concludes_little(aligned: bool) -> None:
    first = random_features(1)
    alone, three = made_of(first, aligned=aligned), made_of(first, like(first, 2), like(first, 3), aligned=aligned)
    for one, several in zip(alone.stages, three.stages, strict=True):
        assert one.far > several.far
    assert alone.strange == ()
    assert unlikeness(alone, like(first, 4), (24, 24)).max() < 1


def test_one_golden_picture_of_few_patches_concludes_nothing() -> None:
    coarse = (torch.rand(4, 4, 8, generator=torch.Generator().manual_seed(1)),)
    memory = made_of(coarse)
    assert unlikeness(memory, tuple(5 * stage for stage in coarse), (8, 8)).max() < 1e-6
    assert all(np.isfinite([stage.near, stage.far]).all() for stage in memory.stages)


@BOTH_WAYS
def test_strange_picture_is_named_among_three_or_more_only(aligned: bool) -> None:
    first = widened(random_features(1))
    good, odd = [first, *(like(first, seed) for seed in (2, 3, 4))], unseen(random_features(9))
    assert made_of(*good, aligned=aligned).strange == ()
    assert made_of(*good, odd, aligned=aligned).strange == ("4",)
    assert made_of(first, odd, aligned=aligned).strange == ()


def test_golden_pictures_that_are_all_the_same_are_not_strange_and_leave_a_spread() -> None:
    first = random_features(1)
    memory = made_of(first, first, first)
    assert memory.strange == ()
    assert torch.isfinite(unlikeness(memory, like(first, 2), (24, 24))).all()


def test_fingerprint_changes_with_what_changes_a_map_and_not_with_the_order() -> None:
    first, second = random_features(1), random_features(2)
    memory = made_of(first, second)
    assert len(memory.fingerprint) == 16
    turned = [GoldenPicture(name, one, torch.full((24, 24), 0.3)) for name, one in (("1", second), ("0", first))]
    assert remember(turned, bundle="tiny 1", object_name="nut").fingerprint == memory.fingerprint
    others = [
        made_of(first, like(second, 3)),
        made_of(first),
        made_of(first, second, aligned=True),
        made_of(first, second, bundle="tiny 2"),
        made_of(first, second, rough=0.4),
        replace(memory, object_name="bolt"),
        replace(memory, stages=(replace(memory.stages[0], far=memory.stages[0].far * 1.01), memory.stages[1])),
    ]
    assert len({memory.fingerprint, *(one.fingerprint for one in others)}) == 1 + len(others)


ROUGH = st.floats(0, 1, width=32)
UNLIKE = st.floats(0, 100, width=32)


@given(rough=st.tuples(ROUGH, ROUGH), unlike=st.tuples(UNLIKE, UNLIKE), far=st.floats(0, 1))
def test_fused_stays_in_range_and_rises_with_both(
    rough: tuple[float, float], unlike: tuple[float, float], far: float
) -> None:
    memory = replace(made_of(random_features(1)), rough_far=far)
    least = fused(torch.tensor(min(rough)), torch.tensor(min(unlike)), memory)
    for more in ((max(rough), min(unlike)), (min(rough), max(unlike)), (max(rough), max(unlike))):
        found = fused(torch.tensor(more[0]), torch.tensor(more[1]), memory)
        assert 0 <= least <= found <= 1


def test_fused_is_one_half_where_both_are_as_golden_pictures_at_most_are() -> None:
    memory = made_of(random_features(1), rough=0.25)
    found = fused(torch.tensor([[0.25, 0.0]]), torch.tensor([[1.0, 0.0]]), memory)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0]]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    directory = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(directory)
    return load_bundle(f"path:{directory}", parts={"clip", "umci"})


def without_head(bundle: Bundle) -> Bundle:
    return replace(bundle, umci=None, manifest=msgspec.structs.replace(bundle.manifest, umci=None))


def part(seed: int, spot: bool = False) -> np.ndarray:
    """A grey plate under a soft light, with a little noise."""
    light = np.linspace(90, 150, 64)[:, None, None] + np.zeros((64, 64, 3))
    light += np.random.default_rng(seed).normal(0, 2, light.shape)
    if spot:
        light[24:40, 24:40] = (250, 20, 20)
    return light.clip(0, 255).astype(np.uint8)


@BOTH_WAYS
@pytest.mark.parametrize("head", [True, False], ids=["umci", "no head"])
def test_inspector_scores_a_painted_spot_above_what_its_golden_pictures_show(
    bundle: Bundle, head: bool, aligned: bool
) -> None:
    inspector = Inspector(bundle if head else without_head(bundle))
    golden = inspector.remember([(str(seed), part(seed)) for seed in range(3)], "plate", aligned=aligned)
    good, bad = (inspector.localize(part(0, spot), "plate", golden) for spot in (False, True))
    assert good.score < bad.score
    assert good.anomaly_map.shape == bad.anomaly_map.shape == (64, 64)
    hottest = np.unravel_index(bad.anomaly_map.argmax(), bad.anomaly_map.shape)
    assert all(16 <= place < 48 for place in hottest)
    assert golden.bundle == inspector.bundle_version
    assert golden.object_name == "plate"


def test_inspector_names_the_picture_that_is_not_of_the_product(bundle: Bundle) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    pictures = [*((str(seed), part(seed)) for seed in range(4)), ("noise", noise)]
    assert Inspector(bundle).remember(pictures, "plate").strange == ("noise",)


def test_highest_score_is_what_the_oddest_golden_picture_scores_without_itself() -> None:
    product = random_features(0)
    alike = [like(product, seed) for seed in range(1, 6)]
    odd = like(product, 9, noise=0.4)
    calm, with_odd = made_of(*alike), made_of(*alike, odd)
    assert 0 < calm.highest_score < 1
    others = made_of(*alike)
    seen_by_others = fused(torch.full((24, 24), 0.3), unlikeness(others, odd, (24, 24)), others)
    seen_by_all = fused(torch.full((24, 24), 0.3), unlikeness(with_odd, odd, (24, 24)), with_odd)
    assert picture_score(seen_by_all.numpy()) < with_odd.highest_score
    assert picture_score(seen_by_others.numpy()) > calm.highest_score
