"""Every entry point checks its inputs: arrays completely, data sources by their first batch, on every backend."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from keras_vae import VAE, InputError
from keras_vae.core import backend
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset

MakeVAE = Callable[..., VAE]


class Batches(keras.utils.PyDataset):
    def __init__(self, images: Array) -> None:
        super().__init__()
        self.images = images

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Array]:
        return (self.images[index * 8 : (index + 1) * 8],)


def generator(images: Array) -> Iterator[tuple[Array]]:
    for start in range(0, len(images), 8):
        yield (images[start : start + 8],)


def tf_data(images: Array) -> Any:
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(images).batch(8)


def data_loader(images: Array) -> Any:
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(images)), batch_size=8)


SOURCES = [Batches, generator, tf_data, data_loader]


@pytest.fixture
def vae(make_vae: MakeVAE) -> VAE:
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


@pytest.mark.parametrize("source", SOURCES)
def test_first_batch_of_a_source_is_checked(source: Callable[[Array], Any], vae: VAE, images: Array) -> None:
    floats = images.astype("float32")
    before = [weight.copy() for weight in vae.get_weights()]
    for call in (vae.fit, vae.evaluate, vae.predict):
        with pytest.raises(InputError, match="divide by 255"):
            call(source(floats), verbose=0)
        with pytest.raises(InputError, match=r"images.shape = \(8, 9, 10, 1\)"):
            call(source(images[:, :, 1:]), verbose=0)
    # Neither the number of steps nor the state of the random generators has changed.
    assert all(np.array_equal(old, new) for old, new in zip(before, vae.get_weights(), strict=True))
    with pytest.raises(InputError, match="divide by 255"):
        vae.fit(images, validation_data=source(floats), verbose=0)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_data_types_other_than_uint8_and_floats_are_rejected_and_the_model_remains_usable(
    dtype: str, vae: VAE, images: Array
) -> None:
    message = rf"^images.dtype = {dtype}: not supported; pass uint8 levels 0…255, or floats in \[0, 1\]$"
    for call in (vae.fit, vae.evaluate, vae.predict):
        for x in (images.astype(dtype), Batches(images.astype(dtype))):
            with pytest.raises(InputError, match=message):
                call(x, verbose=0)
    for call in (vae.train_on_batch, vae.predict_on_batch, vae, vae.encode):
        with pytest.raises(InputError, match=message):
            call(images.astype(dtype))
    assert np.isfinite(vae.fit(images, verbose=0).history["total_loss"])


def test_unknown_names_in_a_dict_are_rejected_and_the_model_remains_usable(vae: VAE, images: Array) -> None:
    message = r"^x = dict of image: unknown 'image'; did you mean 'images'\? pass {.images.: x, .condition.: c}$"
    for call in (vae.fit, vae.evaluate, vae.predict, vae.train_on_batch, vae, vae.encode):
        with pytest.raises(InputError, match=message):
            call({"image": images})
    with pytest.raises(InputError, match=r"x = dict of nothing: no images; pass"):
        vae.fit({})
    assert np.isfinite(vae.fit({"images": images}, verbose=0).history["total_loss"])


def test_other_objects_than_images_are_rejected(vae: VAE, images: Array) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    for call in (vae.fit, vae.evaluate, vae.predict, vae.train_on_batch, vae.encode):
        with pytest.raises(InputError, match=r"^x = None: no images; pass an array of images$"):
            call(None)
        with pytest.raises(InputError, match=r"^x = Dataset of 24 images: not an array; pass dataset\.images$"):
            call(dataset)
    with pytest.raises(InputError, match=r"pass dataset\.images"):
        vae.fit(images, validation_data=dataset)


def test_generator_may_yield_arrays_without_a_tuple(vae: VAE, images: Array) -> None:
    vae.fit((images[start : start + 8] for start in range(0, 24, 8)), verbose=0)
    assert int(keras.ops.convert_to_numpy(vae.loss_trackers["total_loss"].count)) == 24


@pytest.mark.parametrize("source", SOURCES)
def test_checked_first_batch_of_a_source_is_still_used(source: Callable[[Array], Any], vae: VAE, images: Array) -> None:
    history = vae.fit(source(images), verbose=0).history
    assert int(keras.ops.convert_to_numpy(vae.loss_trackers["total_loss"].count)) == 24
    assert history["kl_loss"][0] == pytest.approx(
        vae.evaluate(images, verbose=0, return_dict=True)["kl_loss"], rel=1e-5, abs=1e-6
    )
    assert vae.evaluate(source(images), verbose=0, return_dict=True)["kl_loss"] == pytest.approx(
        history["kl_loss"][0], rel=1e-5, abs=1e-6
    )
    np.testing.assert_allclose(
        vae.predict(source(images), verbose=0).z_mean, vae.predict(images, verbose=0).z_mean, atol=1e-6
    )


def test_several_steps_per_execution_use_every_batch(make_vae: MakeVAE, images: Array) -> None:
    if backend.name() == "torch":
        pytest.skip("Keras runs one step per execution on PyTorch")
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0), steps_per_execution=2)
    history = vae.fit(tf_data(images), verbose=0).history
    assert int(keras.ops.convert_to_numpy(vae.loss_trackers["total_loss"].count)) == 24
    assert history["kl_loss"][0] == pytest.approx(
        vae.evaluate(images, verbose=0, return_dict=True)["kl_loss"], rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("call", ["train_on_batch", "test_on_batch", "predict_on_batch", "__call__"])
def test_single_batches_are_checked(call: str, vae: VAE, images: Array) -> None:
    floats = images.astype("float32")
    with pytest.raises(InputError, match="divide by 255"):
        getattr(vae, call)(floats)
    with pytest.raises(InputError, match="divide by 255"):
        getattr(vae, call)({"images": floats})
    getattr(vae, call)(images)


def test_eager_tensors_are_checked_and_symbolic_ones_are_not(vae: VAE, images: Array) -> None:
    with pytest.raises(InputError, match="divide by 255"):
        vae(keras.ops.convert_to_tensor(images.astype("float32")))
    assert vae(keras.Input((9, 11, 1))).reconstruction.shape == (None, 9, 11, 1)


def test_only_the_first_batch_of_a_source_is_checked(vae: VAE, images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    peeked = []
    peek = backend.peek
    monkeypatch.setattr(backend, "peek", lambda *args: peeked.append(args) or peek(*args))
    vae.fit(Batches(images), epochs=3, verbose=0)
    assert len(peeked) == 1
    vae.fit(images, epochs=2, validation_data=Batches(images), verbose=0)
    assert len(peeked) == 2
