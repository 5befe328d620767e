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
    import gradio as gr

    from keras_vae import Run
    from keras_vae.explorer import app
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.tabs.latent_map import MapState
    from keras_vae.explorer.tabs.samples import ALL_LABELS
    from keras_vae.explorer.tabs.sliders import MAX_SLIDERS

    # Suppress warnings about retracing, because retracing for different batch sizes is intended.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    explorer = Explorer(Run.open(path))
    explorer.warm_up()
    explorer.prepare()
    tab = {function.fn.__qualname__: function.fn for function in app.build(explorer).fns.values()}

    def event(**data: object) -> gr.EventData:
        return gr.EventData(None, data)

    images = explorer.choices()[0]
    png = _encode_png(images[0])
    uri = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    upload = Path(tempfile.mkdtemp()) / "upload.png"
    upload.write_bytes(png)
    label = explorer.classes[0] if explorer.classes else None
    space, ends = explorer.latent_space, [images[0], images[1]]
    plane = space.plane()
    state = MapState(plane, space.default_view(plane), (0.3, -0.2))
    box = {"x0": 0.2, "y0": 0.2, "x1": 0.5, "y1": 0.6}
    values = [0.5] * min(space.latent_dim, MAX_SLIDERS)
    return {
        "map: click": lambda: tab["LatentMapTab.pick"](event(x=0.3, y=0.6), state, label),
        "map: zoom to a region": lambda: tab["LatentMapTab.zoom_to_region"](event(**box), state, True, label),
        "map: other plane": lambda: tab["LatentMapTab.change_plane"]("dimensions", *space.top_dims, True, label),
        "sliders: move": lambda: tab["SlidersTab.move"](space.center, label, *values),
        "sliders: random code": lambda: tab["SlidersTab.random_code"](label, 1.0),
        "draw: a stroke": lambda: tab["DrawTab.analyze_sketch"](event(image=uri), label),
        "draw: an upload": lambda: tab["DrawTab.analyze_upload"](str(upload), False, label),
        "interpolate: choose an image": lambda: tab["InterpolateTab.choose"](event(index=3), 0, ends, 0, label),
        "interpolate: GIF": lambda: tab["InterpolateTab.linear_gif"](ends, label),
        "samples: new samples": lambda: tab["SamplesTab.sample"](explorer.sampler.priors[0], ALL_LABELS),
        "report: open": lambda: tab["ReportTab.show"](),
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
