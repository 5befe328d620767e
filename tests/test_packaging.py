"""The wheel and the source distribution: their files, sizes and metadata."""

import email
import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from helpers import on_tensorflow
from keras_vae import __version__

pytestmark = on_tensorflow("independent of the backend")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LARGEST = 8_000_000
"""Limit of the size of each file, in bytes."""
UNPACKAGED = {".gitignore", ".ci/run"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    list(SdistBuilder(str(ROOT)).build(directory=str(folder)))
    list(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"keras_vae-{__version__}.dist-info/METADATA"))


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_distributions_are_small(built: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in built.iterdir()}
    assert set(sizes) == {f"keras_vae-{__version__}-py3-none-any.whl", f"keras_vae-{__version__}.tar.gz"}
    assert max(sizes.values()) <= LARGEST, sizes


def test_wheel_contains_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "src" / "keras_vae"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {str(path.relative_to(package.parent)) for path in files}
    packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == expected
    for needed in ("py.typed", "__init__.pyi", "report/templates/report.html", "explorer/assets/style.css"):
        assert f"keras_vae/{needed}" in packaged


def test_source_distribution_contains_every_tracked_file(built: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if name and (ROOT / name).exists()}
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        packaged = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - UNPACKAGED <= packaged


def test_metadata_is_complete(metadata: Message, wheel: zipfile.ZipFile) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("keras-vae", __version__)
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata["License-Expression"] == "Apache-2.0"
    for name in metadata.get_all("License-File"):
        assert wheel.read(f"keras_vae-{__version__}.dist-info/licenses/{name}") == (ROOT / name).read_bytes()
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])


def test_citation_and_changelog_name_the_version_and_its_date() -> None:
    citation = dict(re.findall(r"^([\w-]+): (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE))
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation["version"] == __version__
    assert headings[headings[0] == "Unreleased"] == f"{__version__} - {citation['date-released']}"
    assert (ROOT / "tests" / "data" / "released" / __version__).is_dir()


def test_oldest_constraints_are_the_lower_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    (chosen,) = re.findall(r"keras-vae\[([^]]+)\]", " ".join(extras["dev"]))
    requirements = [*PROJECT["dependencies"], *(line for name in chosen.split(",") for line in extras[name])]
    bounds = {line.partition(";")[0].replace(">=", "==") for line in requirements}
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    assert {line for line in lines if not line.startswith("#")} == bounds


def test_classifiers_name_the_python_versions_from_the_lower_bound_on(metadata: Message) -> None:
    pattern = re.compile(r"Programming Language :: Python :: 3\.(\d+)")
    versions = [int(match[1]) for match in map(pattern.fullmatch, metadata.get_all("Classifier")) if match]
    assert versions == list(range(versions[0], versions[-1] + 1))
    assert metadata["Requires-Python"] == f">=3.{versions[0]}"


def test_description_renders_and_has_no_links_into_the_repository(metadata: Message) -> None:
    from readme_renderer import markdown

    assert metadata["Description-Content-Type"] == "text/markdown"
    description = metadata.get_payload()
    page = markdown.render(description) or ""
    assert "Variational autoencoders for Keras 3." in page
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert [target for target in targets if not target.startswith(("https:", "#"))] == []


def test_relative_links_become_absolute_in_a_public_repository(hook: ModuleType) -> None:
    readme = "![grid](docs/grid.png)\n\nSee [the docs](docs/a.md#b), [Keras](https://keras.io) or [below](#below).\n"
    address = "https://example.org/keras-vae"
    assert hook.described(readme, address) == (
        f"![grid]({address}/raw/HEAD/docs/grid.png)\n\n"
        f"See [the docs]({address}/blob/HEAD/docs/a.md#b), [Keras](https://keras.io) or [below](#below).\n"
    )
    assert hook.described(readme) == "\n\nSee the docs, [Keras](https://keras.io) or [below](#below).\n"


@pytest.mark.slow
def test_every_command_of_an_installed_wheel_runs(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    finished = subprocess.run(
        [sys.executable, ROOT / "tools" / "smoke_test.py", wheel], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr
