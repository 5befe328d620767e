"""Measure the latency of the events of `vae explore`.

    python benchmarks/explorer.py runs/classic
    python benchmarks/explorer.py --http http://127.0.0.1:7860

Every event of the page calls a method of a class in `keras_vae.explorer.tabs`. The first form calls these methods
directly, without HTTP and without the browser. `--http` sends two kinds of requests to a running page: plain requests,
like a browser, and requests of gradio_client, whose queue delivers results every 50 ms.
"""

import argparse
import base64
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

LIMIT = 0.150
"""The largest acceptable median latency, in seconds."""


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> bool:
    """Print the median and the 95th percentile of each latency, and return whether all medians are below the limit."""
    all_below = True
    for name, call in calls.items():
        call()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        median, p95 = np.quantile(seconds, (0.5, 0.95))
        all_below &= median < LIMIT
        print(f"{name:<42} {1000 * median:7.1f} ms   95%: {1000 * p95:7.1f} ms")
    return all_below


def events(path: Path) -> dict[str, Callable[[], object]]:
    """Return calls of the methods that handle the events of the page, by name."""
    from keras_vae import Run
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.tabs.arithmetic import ArithmeticTab
    from keras_vae.explorer.tabs.draw import DrawTab
    from keras_vae.explorer.tabs.interpolate import InterpolateTab
    from keras_vae.explorer.tabs.latent_map import LatentMapTab, MapState
    from keras_vae.explorer.tabs.report import ReportTab
    from keras_vae.explorer.tabs.samples import ALL_LABELS, SamplesTab
    from keras_vae.explorer.tabs.sliders import MAX_SLIDERS, SlidersTab

    # Suppress warnings about retracing, because retracing for different batch sizes is intended.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    explorer = Explorer(Run.open(path))
    explorer.warm_up()
    explorer.prepare()
    latent_map, sliders, draw = LatentMapTab(explorer), SlidersTab(explorer), DrawTab(explorer)
    interpolate, arithmetic, samples = InterpolateTab(explorer), ArithmeticTab(explorer), SamplesTab(explorer)
    contents = [_encode_png(image) for image in explorer.choices()[0][:3]]
    uris = [f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in contents]
    upload = Path(tempfile.mkdtemp()) / "upload.png"
    upload.write_bytes(contents[0])
    label = explorer.classes[0] if explorer.classes else None
    space = explorer.latent_space
    plane = space.plane()
    state, axes = MapState(plane, space.default_view(plane)), ("dimensions", *space.top_dims)
    place = {"plane": " ".join(plane.names), "point": [0.3, -0.2], "mark": [0.3, -0.2], "region": [0.2, 0.2, 0.5, 0.6]}
    values = [0.5] * min(space.latent_dim, MAX_SLIDERS)
    return {
        "map: decode a point": lambda: latent_map.decode(place, *axes, label),
        "map: zoom to a region": lambda: latent_map.update("region", state, place, *axes, True, label),
        "map: other plane": lambda: latent_map.update(None, state, place, *axes, True, label),
        "sliders: move": lambda: sliders.move(space.center, label, *values),
        "sliders: random code": lambda: sliders.random_code(label, 1.0),
        "draw: a stroke": lambda: draw.analyze_sketch(uris[0], label),
        "draw: an upload": lambda: draw.analyze_upload(str(upload), False, label),
        "interpolate: choose an image": lambda: interpolate.strips(uris[:2], label),
        "interpolate: GIF": lambda: interpolate.gif("linear interpolation", uris[:2], label),
        "arithmetic: choose an image": lambda: arithmetic.result(uris, label),
        "samples: new samples": lambda: samples.sample(explorer.sampler.priors[0], ALL_LABELS),
        "report: open": ReportTab(explorer).show,
    }


def _encode_png(image: np.ndarray) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return content.getvalue()


def over_http(address: str) -> dict[str, Callable[[], object]]:
    """Return calls of the API of a running page, by name."""
    import httpx
    from gradio_client import Client

    client, browser = Client(address, verbose=False), httpx.Client(base_url=address)
    size = client.predict(api_name="/describe")["latent_dim"]
    uri = client.predict(count=1, api_name="/sample")[0]
    code = [0.5] * size

    def post(name: str, *values: object) -> None:
        browser.post(f"/gradio_api/run/{name}", json={"data": values}).raise_for_status()

    return {
        "one request: decode": lambda: post("decode", code, None),
        "one request: analyze": lambda: post("analyze", uri, None),
        "gradio_client: decode": lambda: client.predict(code=code, api_name="/decode"),
        "gradio_client: analyze": lambda: client.predict(image=uri, api_name="/analyze"),
    }


def main() -> None:
    """Measure all latencies, and fail if a median is too high."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or with --http the URL of a page")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    calls = over_http(arguments.run) if arguments.http else events(Path(arguments.run))
    if not measure(calls, arguments.repeats):
        raise SystemExit(f"an event took more than {1000 * LIMIT:.0f} ms")


if __name__ == "__main__":
    main()
