"""Export of the latent map of a run as one web page, which decodes in the visitor's browser."""

import base64
import gzip
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from keras_vae.core.errors import require_packages
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.assets import asset
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.plane import View
from keras_vae.integrations.export import web_runtime
from keras_vae.integrations.export.decoder import onnx_decoder
from keras_vae.integrations.export.formats.onnx import ONNX
from keras_vae.integrations.export.graphs import in_float32
from keras_vae.report.pages import load_template
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.explorer.latent_space import LatentSpace

_SMOOTH_FROM = 96
"""Side in pixels from which images are enlarged smoothly instead of with visible pixels."""


def write_web_page(
    run: Run | str | Path,
    out: str | Path,
    *,
    runtime: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write the latent map of a run as one page that decodes in the visitor's browser, without a server.

    `index.html` contains the decoder as an ONNX graph, ONNX Runtime Web, and the codes of at most 600 images. It needs
    no network and no other file.

    Args:
        run: A complete run, its folder or its name.
        out: The folder to write.
        runtime: The folder with the files of ONNX Runtime Web; None uses the cache or npm.
        force: Whether to replace an earlier page.
        progress: Reports the progress of loading images.

    Returns:
        The folder.

    Raises:
        InputError: The run is not complete, its codes are not vectors of two or more dimensions, the folder exists, a
            package is missing, or ONNX Runtime Web is not available.
        RunError: ONNX Runtime Web cannot be downloaded, the decoder cannot be written or disagrees with the model, or
            another process writes to the folder.
    """
    run, out = run if isinstance(run, Run) else Run.open(run), Path(out).expanduser()
    check_available()
    run.require_complete()
    check_destination(out, force=force, marker="index.html", kind="web page")
    files = web_runtime.load_runtime(None if runtime is None else Path(runtime).expanduser())
    page = _render(Explorer(run, progress), files)
    with replacing_folder(out, replace=force) as folder:
        write_text(folder / "index.html", page)
    return out


def check_available() -> None:
    """Check that the packages and the backend that write an ONNX graph are available.

    Raises:
        InputError: A package is missing, or another backend is in use.
    """
    require_packages("format = 'web'", ONNX.packages, ONNX.extra)
    ONNX.check_backend()


class Slider(NamedTuple):
    """The slider that shifts all codes of the map along a latent dimension.

    Args:
        dimension: Index of the dimension.
        reach: Largest shift in both directions, a multiple of the step.
        step: Smallest change.
    """

    dimension: int
    reach: float
    step: float


def _render(explorer: Explorer, runtime: web_runtime.WebRuntime) -> str:
    space, run, label = explorer.latent_space, explorer.run, explorer.label_index(None)
    plane = space.plane(space.plane_kinds[-1])
    view = space.default_view(plane)
    codes = plane.codes(view.cell_centers(space.grid_size))
    model = in_float32(explorer.engine.model)
    images = Engine(model, [len(codes)]).decode(codes, label)
    points = plane.points(space.codes)
    start = _start(points, view)
    labels, names = (None, ()) if space.dataset is None else (space.dataset.labels, space.dataset.classes)
    drawn = pictures.latent_map(
        images,
        plane,
        view,
        points=points if len(points) else None,
        labels=labels,
        names=names,
        mark=start,
        description="map of the latent space; arrow keys move the ring",
        focusable=True,
    )
    data: dict[str, Any] = {
        "imageShape": explorer.image_shape,
        "gridSize": space.grid_size,
        "start": start,
        "origin": plane.origin.tolist(),
        "basis": plane.basis.tolist(),
        "axes": plane.names,
        "latentShape": model.latent_shape,
        "codeName": model.code_name,
        "label": label,
    }
    script = asset("web_page.js")
    active, inactive = _sliders(space)
    return load_template("web.html").render(
        title=run.name,
        description=run.experiment.description,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        map=Markup(drawn),
        legend=Markup(pictures.legend(labels, names)),
        axes=plane.names,
        classes=explorer.classes,
        sliders=active,
        inactive_sliders=inactive,
        image_shape=explorer.image_shape,
        is_pixelated=max(explorer.image_shape[:2]) < _SMOOTH_FROM,
        num_points=len(space.codes),
        split="" if space.dataset is None else space.dataset.split,
        data=data,
        runtime_version=web_runtime.VERSION,
        packed={
            "runtime-script": _packed(runtime.script),
            "runtime-binary": _packed(runtime.binary),
            "decoder": _packed(onnx_decoder(model, codes, images, label)),
        },
    )


def _start(points: Array, view: View) -> tuple[float, float]:
    """Return the first point inside a view, whose image is that of an actual code; the center if there is none."""
    inside = points[np.abs(points - np.array(view.center)).max(axis=1) <= view.half]
    u, v = inside[0].tolist() if len(inside) else view.center
    return u, v


def _sliders(space: "LatentSpace") -> tuple[list[Slider], list[Slider]]:
    """Return the sliders of the active and of the inactive dimensions.

    There are none if the map shows all dimensions, or if they are the entries of a latent map.
    """
    sliders: tuple[list[Slider], list[Slider]] = [], []
    has_sliders = space.latent_dim > 2 and len(space.engine.model.latent_shape) == 1
    for dimension in space.order if has_sliders else ():
        step = float(space.steps[dimension])
        reach = float(np.ceil(np.ptp(space.limits[:, dimension]) / 2 / step) * step)
        sliders[not space.is_active(dimension)].append(Slider(dimension, reach, step))
    return sliders


def _packed(content: bytes) -> str:
    """Return content as the base64 of a gzip file, which browsers can unpack."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode("ascii")
