import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from keras_vae.core.errors import InputError
from keras_vae.data.combining import check_compatible
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.data.factors import Factors

RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 256, (5, 6, 4), np.uint8)


def dataset(
    images: object = LEVELS,
    labels: object = None,
    name: str = "random",
    split: str = "all",
    classes: Sequence[str] = (),
) -> Dataset:
    return Dataset.from_arrays(images, labels, name=name, split=split, classes=classes)  # type: ignore[arg-type]


def numbered(count: int, labels: bool = True) -> Dataset:
    """Return images that encode their positions in their two pixels and in their labels."""
    numbers = np.arange(count)
    images = np.stack([numbers // 256, numbers % 256], axis=-1).astype(np.uint8)[:, np.newaxis, :, np.newaxis]
    return Dataset(images, numbers if labels else None, "numbered", "all")


def positions_of(part: Dataset | None) -> NDArray[np.int64]:
    assert part is not None
    found: NDArray[np.int64] = part.images.reshape(-1, 2).astype(np.int64) @ np.array([256, 1])
    assert part.labels is not None
    np.testing.assert_array_equal(part.labels, found)
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_integer_levels_are_kept(dtype: type) -> None:
    np.testing.assert_array_equal(dataset(LEVELS.astype(dtype)).images[..., 0], LEVELS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_all_levels_survive_the_conversion_to_floats(dtype: DTypeLike) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(dataset((levels / 255).astype(dtype)).images[..., 0], levels)


def test_booleans_become_black_and_white() -> None:
    np.testing.assert_array_equal(dataset(LEVELS > 99).images[..., 0], np.where(LEVELS > 99, 255, 0))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 6, 4), (6, 4, 1)), ((5, 6, 4, 1), (6, 4, 1)), ((5, 7, 9, 3), (7, 9, 3)), ((2, 1, 2), (1, 2, 1))],
)
def test_image_shape_has_height_width_and_channels(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    data = dataset(RNG.integers(0, 256, shape))
    assert data.image_shape == expected
    assert len(data) == shape[0]
    assert data.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (LEVELS * 1.0, r"floats from 0 to 2\d+; pass floats in \[0, 1\] \(divide levels 0..255 by 255"),
        (LEVELS / 255 - 0.5, r"floats from -0.5 to 0.\d+; pass"),
        (np.full((2, 2, 2), np.nan), "NaN or infinite"),
        (np.full((2, 2, 2), np.inf), "NaN or infinite"),
        (np.where(LEVELS == LEVELS[0, 0, 0], np.nan, 0.5), "NaN or infinite"),
        (LEVELS.astype(int) + 1000, r"integers from 10\d\d to 12\d\d; pass integers 0 to 255"),
        (LEVELS.astype(int) - 300, "integers from -300"),
        (LEVELS % 2, "all 0 or 1, nearly black"),
        (np.zeros((3, 4, 4), int), "all 0 or 1, nearly black"),
        (LEVELS[0], r"images.shape = \(6, 4\): not images; pass N x H x W"),
        (RNG.integers(0, 256, (28, 28, 3)), r"\(28, 28, 3\): .*\(for a single image, add a first axis\)"),
        (LEVELS[..., None, None], "pass N x H x W"),
        (np.float64(0.5), r"images.shape = \(\)"),
        (LEVELS[:0], "no pixels; pass at least one"),
        (np.zeros((3, 0, 4)), "no pixels"),
        (RNG.integers(0, 256, (5, 6, 4, 2)), "2 channels; pass 1"),
        (RNG.integers(0, 256, (5, 6, 4, 4)), "4 channels; pass 1"),
        (RNG.integers(0, 256, (5, 3, 8, 8)), "channels come last: transpose"),
        (np.array([object()] * 8).reshape(2, 2, 2), "an array of object"),
        (np.full((2, 2, 2), "a"), "an array of <U1"),
        (np.full((2, 2, 2), 1j), "an array of complex128"),
        ([[[1, 2], [3]], [[4, 5]]], "images: not one array"),
    ],
)
def test_invalid_images_are_rejected(images: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dataset(images)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("images")


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64, ">i4", bool])
def test_labels_become_int64(dtype: DTypeLike) -> None:
    labels = dataset(labels=np.array([0, 1, 0, 1, 1], dtype)).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 0, 1, 1]


def test_column_of_labels_is_squeezed() -> None:
    labels = dataset(labels=[[3], [1], [4], [1], [5]]).labels
    assert labels is not None
    # Ranks of 3, 1, 4, 1, 5 among their distinct values 1, 3, 4, 5.
    assert labels.tolist() == [1, 0, 2, 0, 3]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1, 2, 3], (), r"= \(4,\): there are 5 images"),
        (np.eye(5, dtype=int) * 2, (), r"= \(5, 5\): rows without exactly one 1"),
        (np.zeros(5), (), "an array of float64; pass integers"),
        (["cat"] * 5, ("dog", "horse"), "unknown labels cat; accepted labels: dog, horse"),
        (np.full(5, 2**64 - 1, np.uint64), (), "fit into 64 bits"),
        ([0, 1, 2, 1, 0], ("a", "b"), "from 0 to 2 with 2 classes; pass 0 to 1"),
        ([-1, 1, 0, 1, 0], (), "from -1 to 1; pass class numbers, counted from 0"),
    ],
)
def test_invalid_labels_are_rejected(labels: object, classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"^labels.*{message}"):
        dataset(labels=labels, classes=classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": LEVELS}, r"images: uint8 of shape \(5, 6, 4\)"),
        ({"images": LEVELS[..., None] / 255}, "images: float64"),
        ({"labels": np.zeros(5, np.int32)}, "labels: int32"),
        ({"labels": np.zeros(4, np.int64)}, "for 5 images"),
        ({"split": "trian"}, "split = 'trian': unknown; did you mean 'train'"),
    ],
)
def test_constructor_rejects_invalid_fields(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"images": LEVELS[..., None], "labels": None, "name": "x", "split": "all"}
    with pytest.raises(InputError, match=message):
        Dataset(**{**fields, **change})


def test_checksum_is_sha256_of_shape_pixels_and_labels() -> None:
    expected = hashlib.sha256(b"(5, 6, 4, 1)" + LEVELS.tobytes())
    assert dataset().checksum == expected.hexdigest()
    expected.update(b"labels" + b"".join(number.to_bytes(8, "little") for number in [3, 0, 2, 1, 4]))
    assert dataset(labels=[7, 0, 2, 1, 300]).checksum == expected.hexdigest()


def test_checksum_depends_only_on_content() -> None:
    labels = np.arange(5)
    pixel, label = LEVELS.copy(), labels.copy()
    pixel[3, 2, 1] ^= 1
    label[4] = 0
    reference = dataset(labels=labels)
    same = [
        dataset(labels=labels, name="other", split="test", classes="abcde"),
        dataset(LEVELS.astype(np.float32) / 255, labels=labels.astype(np.uint8)),
        dataset(np.asfortranarray(LEVELS), labels=labels[::-1][::-1]),
    ]
    others = [
        dataset(pixel, labels),
        dataset(labels=label),
        dataset(),
        dataset(LEVELS.reshape(5, 4, 6), labels),
        dataset(LEVELS[::-1], labels),
    ]
    assert {part.checksum for part in same} == {reference.checksum}
    assert len({part.checksum for part in [reference, *others]}) == 6


def test_subset_keeps_pixels_and_labels_together() -> None:
    part = numbered(9).subset(np.array([7, 2, 4]), "validation")
    assert positions_of(part).tolist() == [7, 2, 4]
    assert (part.name, part.split) == ("numbered", "validation")


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 4, 8]), (4, [0, 3, 5, 8]), (20, list(range(9)))])
def test_subsample_is_evenly_spaced_and_no_larger_than_the_data_set(count: int, expected: list[int]) -> None:
    part = numbered(9).subsample_evenly(count)
    assert positions_of(part).tolist() == expected
    assert part.split == "all"


def parts(
    count: int = 100,
    test: Dataset | None = None,
    *,
    labels: bool = True,
    validation: float = 0.1,
    test_size: float = 0.2,
    holdout: bool = True,
    seed: int = 0,
) -> Splits:
    train = numbered(count, labels)
    return split(train, test, validation=validation, test_size=test_size, holdout=holdout, seed=seed)


def test_splits_are_disjoint_complete_and_in_order() -> None:
    found = [positions_of(part) for part in parts()]
    assert [len(part) for part in found] == [70, 10, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(100))
    assert all((np.diff(part) > 0).all() for part in found)
    assert [part.split for part in parts() if part] == ["train", "validation", "test"]


def test_split_depends_only_on_the_seed() -> None:
    np.random.seed(1)
    untouched = np.random.random()
    first = [positions_of(part).tolist() for part in parts(seed=3)]
    np.random.seed(1)
    assert [positions_of(part).tolist() for part in parts(seed=3)] == first
    assert np.random.random() == untouched
    assert [positions_of(part).tolist() for part in parts(seed=4)] != first


def test_test_images_do_not_depend_on_the_validation_size() -> None:
    assert positions_of(parts(validation=0.5).test).tolist() == positions_of(parts(validation=0).test).tolist()


def test_split_draws_from_the_whole_data_set() -> None:
    held_out = positions_of(parts(1000, validation=0.5, test_size=0).validation)
    # A random half of 0..999 has mean 499.5 with a standard error of 9.1; the first half has mean 249.5.
    assert 450 < held_out.mean() < 550


def test_test_images_of_the_source_are_kept_whole() -> None:
    own = numbered(30)
    found = parts(test=own, test_size=0.9)
    np.testing.assert_array_equal(positions_of(found.test), np.arange(30))
    assert found.test is not None
    assert found.test.split == "test"
    assert [len(found.train), found.validation and len(found.validation)] == [90, 10]


def test_without_holdout_all_images_are_for_training() -> None:
    found = parts(40, test=numbered(30), holdout=False)
    assert positions_of(found.train).tolist() == [*range(40), *range(30)]
    assert found.train.split == "all"
    assert found[1:] == (None, None)
    assert len(parts(40, holdout=False).train) == 40


def test_sizes_of_zero_hold_out_nothing() -> None:
    found = parts(validation=0, test_size=0.0)
    assert (len(found.train), found.train.split) == (100, "train")
    assert found[1:] == (None, None)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(0.1, 25, 3), (0.1, 24, 2), (0.001, 10, 1), (1, 10, 1), (9, 10, 9), (0.5, 2, 1), (np.int64(4), 10, 4)],
)
def test_sizes_are_rounded_to_at_least_one_image(size: float, count: int, expected: int) -> None:
    held_out = parts(count, validation=size, test_size=0).validation
    assert held_out is not None
    assert len(held_out) == expected


@pytest.mark.parametrize("size", [-0.1, 1.0, 1.5, -1, True, float("nan"), "0.1", None])
@pytest.mark.parametrize("name", ["validation", "test_size"])
def test_invalid_sizes_are_rejected(name: str, size: object) -> None:
    with pytest.raises(InputError, match=rf"^{name} = {size!r}: not a size; pass a fraction in \[0, 1\) or a number"):
        parts(**{name: size})  # type: ignore[arg-type]


@pytest.mark.parametrize(("validation", "test_size"), [(100, 0), (0.5, 0.5), (60, 40), (0, 1000), (0.99, 0.01)])
def test_splits_without_training_images_are_rejected(validation: float, test_size: float) -> None:
    with pytest.raises(InputError, match="of 100 images, which leaves none to train on"):
        parts(validation=validation, test_size=test_size)


@pytest.mark.parametrize("holdout", [True, False])
def test_single_image_is_rejected(holdout: bool) -> None:
    with pytest.raises(InputError, match="a single image cannot be split or trained on"):
        parts(1, holdout=holdout)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True])
def test_invalid_seeds_are_rejected(seed: object) -> None:
    with pytest.raises(InputError, match=r"^seed = .*: not a seed; pass a non-negative integer"):
        parts(seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("holdout", [True, False])
def test_incompatible_train_and_test_images_are_rejected(holdout: bool) -> None:
    with pytest.raises(InputError, match=r"differ in shape: 1 x 2 x 1 and 6 x 4 x 1"):
        parts(test=dataset(labels=np.arange(5)), holdout=holdout)
    with pytest.raises(InputError, match="differ in labels"):
        parts(test=numbered(5, labels=False), holdout=holdout)
    assert parts(test=numbered(5, labels=False), labels=False, holdout=holdout).train.labels is None


def with_factors(count: int, names: Sequence[str] = ("hundreds", "rest")) -> Dataset:
    """Return images that encode their positions in their factors and in their pixels."""
    numbers = np.arange(count)
    factors = Factors.from_array(np.stack([numbers // 100, numbers % 100], axis=-1), names, (9, 100))
    return dataclasses.replace(numbered(count), factors=factors)


def factors_match_images(part: Dataset | None) -> bool:
    assert part is not None
    assert part.factors is not None
    return (part.factors.values @ [100, 1]).tolist() == positions_of(part).tolist()


def test_factors_stay_with_their_images() -> None:
    whole = with_factors(300)
    assert factors_match_images(whole.subset(np.array([7, 250, 7]), "test"))
    parts = split(whole, None, validation=0.2, test_size=0.1, holdout=True, seed=0)
    assert all(map(factors_match_images, parts))
    joined = split(whole, with_factors(10), validation=0, test_size=0, holdout=False, seed=0).train
    assert joined.factors is not None
    assert factors_match_images(joined)
    assert len(joined.factors.values) == 310


def test_checksum_includes_factors_only_if_present() -> None:
    plain, factored = numbered(300), with_factors(300)
    assert plain.factors is None
    # Computed as for data sets without factors.
    digest = hashlib.sha256(repr(plain.images.shape).encode() + plain.images.tobytes() + b"labels")
    digest.update(np.arange(300, dtype="<i8").tobytes())
    assert plain.checksum == digest.hexdigest()
    assert len({plain.checksum, factored.checksum, with_factors(300, ("a", "b")).checksum}) == 3
    assert factored.checksum == with_factors(300).checksum


@pytest.mark.parametrize(
    ("values", "names", "sizes", "message"),
    [
        ([[0.5, 1]], (), (), r"factors: float64 of shape \(1, 2\); pass integers, N x F"),
        ([0, 1], (), (), r"factors: int64 of shape \(2,\)"),
        (np.zeros((0, 2), int), (), (), r"shape \(0, 2\)"),
        ([[0, -1]], (), (), r"values from \[0, -1\] to \[0, -1\]"),
        ([[0, 3]], (), (1, 3), r"values from \[0, 3\] to \[0, 3\] for sizes \(1, 3\)"),
        ([[0, 3]], ("a",), (), r"2 columns, names \('a',\)"),
        ([[0, 3]], ("a", "a"), (), "one unique name"),
        ([[0, 3]], (), (5,), r"sizes \(5,\)"),
    ],
)
def test_invalid_factors_are_rejected(
    values: object, names: tuple[str, ...], sizes: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Factors.from_array(values, names, sizes)  # type: ignore[arg-type]
    assert Factors.from_array(np.array([[0, 3]], np.uint8)).names == ("factor_0", "factor_1")


def test_wrong_number_of_factors_is_rejected() -> None:
    with pytest.raises(InputError, match="factors: 7 rows for 5 images"):
        dataclasses.replace(numbered(5), factors=with_factors(7).factors)


@pytest.mark.parametrize("other", [numbered(5), with_factors(5, ("a", "b"))])
def test_different_factors_in_train_and_test_are_rejected(other: Dataset) -> None:
    with pytest.raises(InputError, match="train and test images differ in factors"):
        check_compatible(with_factors(5), other)
