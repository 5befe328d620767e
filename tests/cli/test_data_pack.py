"""`vae data pack`."""

import json
import os
import shlex
import tarfile
from pathlib import Path

import numpy as np
from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def test_the_file_contains_the_images_of_the_source(vae: Vae, folder: Path) -> None:
    outcome = vae("data", "pack", folder, "x.npy", "--image-size", "4x6", "--fit", "stretch")
    assert (outcome.code, outcome.out) == (0, "x.npy\n")
    assert "resized to 4x6 (H x W, fit = stretch): 30 of 30 images" in outcome.err
    assert "30 all · 4×6×1; train on them with --data x.npy" in outcome.err
    direct = json.loads(vae("data", folder, "--image-size", "4x6", "--fit", "stretch", "--json").out)
    packed = json.loads(vae("data", "x.npy", "--json").out)
    assert packed[0]["checksum"] == direct[0]["checksum"]


def test_json_describes_the_file(vae: Vae, folder: Path) -> None:
    described = json.loads(vae("data", "pack", folder, "x.npy", "--json").out)
    assert (described["path"], described["images"], described["image_shape"]) == ("x.npy", 30, [9, 7, 1])
    assert (described["splits"], described["classes"]) == ({"all": 30}, ["cats", "dogs"])


def test_an_existing_file_is_kept(vae: Vae, folder: Path) -> None:
    assert vae("data", "pack", folder, "x.npy").code == 0
    assert_rejected(
        vae("data", "pack", "digits", "x.npy"), "x.npy: exists; choose another name, or replace it with --f"
    )
    assert vae("data", "pack", "digits", "x.npy", "--force").code == 0
    assert np.load("x.npy").shape == (1797, 28, 28, 1)


def test_wrong_calls_are_rejected_in_one_line(vae: Vae, folder: Path) -> None:
    assert_rejected(vae("data", "pack", "nothing", "x.npy"), "data = 'nothing': no such source")
    assert_rejected(vae("data", "pack", folder), "OUT.npy: missing; see `vae data pack --help`")
    assert_rejected(
        vae("data", "pack", folder, "x.npz"), "out = x.npz: unknown format; choose a name that ends in .npy"
    )
    assert_rejected(vae("data", "pack", "digits", "x.npy", "--scale", "9"), "scale = 9.0: arrays have 8 bits")
    assert not list(Path().iterdir())


def test_the_command_is_listed_and_a_folder_of_its_name_remains_a_source(vae: Vae, folder: Path) -> None:
    assert "data pack" in vae("--help").out
    assert "Usage: vae data pack" in vae("data", "pack", "--help").out
    os.symlink(folder, "pack")
    assert json.loads(vae("data", "./pack", "--json").out)[0]["images"] == 30
    assert "digits" in vae("data").out


def test_training_on_a_source_without_random_access_prints_the_command(vae: Vae, folder: Path) -> None:
    for name in ("cats-0.tar", "cats-1.tar"):
        with tarfile.open(name, "w") as tar:
            for file in sorted((folder / "cats").iterdir())[:4]:
                tar.add(file, f"{name[:-4]}-{file.name}")
    command = "vae data pack 'cats-{0..1}.tar' cats.npy"
    assert_rejected(
        vae("train", "classic", "--data", "cats-{0..1}.tar"), f"run `{command}`, and use cats.npy as the so"
    )
    where = Path("cats-0.tar").resolve()
    assert_rejected(vae("train", "classic", "--data", "cats-0.tar"), f"run `vae data pack {where} cats-0.npy`")
    assert_rejected(vae("data", "cats-0.tar"), "run `vae data pack cats-0.tar cats-0.npy`")
    assert vae(*shlex.split(command)[1:]).code == 0
    assert json.loads(vae("data", "cats.npy", "--json").out)[0]["images"] == 8
