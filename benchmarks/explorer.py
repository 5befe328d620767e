"""How long the events of `vae explore` take.

    python benchmarks/explorer.py runs/classic
    python benchmarks/explorer.py --http http://127.0.0.1:7860

Every event of the page is a function in `keras_vae.explorer.tabs`: here each is called by itself, to the HTML that it
sends, without the way there and the browser's own time. `--http` asks a page that runs already: by the browser's way,
one request, and by gradio_client's, which waits in a queue that hands answers over every 50 ms.
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


def measure(calls: dict[str, Callable[[], object]], repeats: int) -> bool:
    """Print the median and the 95th percentile of each, and return whether every median is within the limit."""
    within = True
    for name, call in calls.items():
        call()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        median, late = np.quantile(seconds, (0.5, 0.95))
        within &= median < LIMIT
        print(f"{name:<42} {1000 * median:7.1f} ms   95 %: {1000 * late:7.1f} ms")
    return within


def events(path: Path) -> dict[str, Callable[[], object]]:
    """Return what the page does at every event, by name."""
    import gradio as gr

    from keras_vae import Run
    from keras_vae.explorer import page
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.tabs import sliders

    # It counts a trace for each batch size as a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    explorer = Explorer(Run.open(path))
    explorer.warm_up()
    explorer.prepare()
    blocks = page.build(explorer)
    functions = {f"{function.fn.__qualname__}": function.fn for function in blocks.fns.values()}
    tab = {name.replace("<locals>.", ""): function for name, function in functions.items()}

    from keras_vae.explorer.plane import View

    def event(**data: object) -> gr.EventData:
        return gr.EventData(None, data)

    images = explorer.picks()[0]
    picture = io.BytesIO()
    from PIL import Image

    Image.fromarray(images[0][..., 0] if images.shape[-1] == 1 else images[0]).save(picture, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
    upload = Path(tempfile.mkdtemp()) / "upload.png"
    upload.write_bytes(picture.getvalue())
    label = explorer.classes[0] if explorer.classes else None
    dims, mark = sorted(explorer.order[:2]), (0.3, -0.2)
    ends = [images[0], images[1]]
    calls: dict[str, Callable[[], object]] = {
        "map: click": lambda: tab["latent_map.pick"](event(x=0.3, y=0.6), "dimensions", dims, View(), label),
        "map: zoom to a region": lambda: tab["latent_map.region"](
            event(x0=0.2, y0=0.2, x1=0.5, y1=0.6), "dimensions", dims, View(), True, label, mark
        ),
        "map: other plane": lambda: tab["latent_map.other"]("dimensions", *dims, True, label),
        "sliders: move": lambda: tab["sliders.image"](
            explorer.middle, label, *[0.5] * len(explorer.order[: sliders.MOST])
        ),
        "sliders: random draw": lambda: tab["sliders.drawn"](label, 1.0),
        "draw: a stroke": lambda: tab["draw.sketched"](event(picture=uri), label),
        "draw: an upload": lambda: tab["draw.uploaded"](str(upload), False, label),
        "between: pick": lambda: tab["between.pick"](event(index=3), 0, ends, 0, label),
        "between: GIF": lambda: tab["between.save.gif"](ends, label),
        "samples: new page": lambda: tab["samples.page"](explorer.priors[0], "all in turn"),
        "run: opened": lambda: tab["findings.show"](),
    }
    return calls


def over_http(address: str) -> dict[str, Callable[[], object]]:
    """Return calls of a running page's API, by name."""
    import httpx
    from gradio_client import Client

    client, browser = Client(address, verbose=False), httpx.Client(base_url=address)
    size = client.predict(api_name="/describe")["latent_dim"]
    uri = client.predict(count=1, api_name="/sample")[0]
    code = [0.5] * size

    def ask(name: str, *values: object) -> None:
        browser.post(f"/gradio_api/run/{name}", json={"data": values}).raise_for_status()

    return {
        "one request: decode": lambda: ask("decode", code, None),
        "one request: place": lambda: ask("place", uri, None),
        "gradio_client: decode": lambda: client.predict(code=code, api_name="/decode"),
        "gradio_client: place": lambda: client.predict(picture=uri, api_name="/place"),
    }


def main() -> None:
    """Measure, and fail where an event takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder, or with --http the address of a page")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    calls = over_http(arguments.run) if arguments.http else events(Path(arguments.run))
    if not measure(calls, arguments.repeats):
        raise SystemExit(f"an event took more than {1000 * LIMIT:.0f} ms")


if __name__ == "__main__":
    main()
