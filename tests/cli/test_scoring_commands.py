"""`vae score`: its table, page and heat maps, and `vae score --watch`."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Vae, assert_rejected
from PIL import Image

from helpers import on_tensorflow
from keras_vae.cli import watching
from keras_vae.data import sources
from keras_vae.evaluation.anomaly import SCORES

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def test_score_writes_percentiles_anomalies_and_heat_maps(vae: Vae, run: Path, folder: Path) -> None:
    options = ["--samples", "3", "--threshold", "0.1", "--heat-maps", "heat.png", "-n", "4"]
    outcome = vae("score", run, "--data", folder, "--out", "scores.npz", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == ["scores.npz", "heat.png", "scores.html"]
    assert "anomaly: nll above" in outcome.err
    scores = np.load("scores.npz")
    assert scores["anomaly"].sum() == (scores["nll"] > np.sort(scores["nll"])[-scores["anomaly"].sum() - 1]).sum()
    assert scores["nll_percentile"].min() >= 0
    assert scores["nll_percentile"].max() <= 100
    assert np.asarray(Image.open("heat.png")).std() > 0
    typical = vae(
        "score", run, "--data", folder, "--out", "b.npz", "--samples", 3, "--score", "kl_loss", "--threshold", 0
    )
    assert "anomaly: kl_loss above" in typical.err
    assert not np.load("b.npz")["anomaly"].all()
    rejected = vae("score", run, "--data", folder, "--out", "c.npz", "--score", "kl-loss")
    assert_rejected(rejected, "did you mean 'kl_loss'")


def test_scores_and_percentiles_of_an_image_are_the_same_in_every_file(vae: Vae, run: Path, folder: Path) -> None:
    images = sources.load(folder).train.images
    np.save("reversed.npy", images[::-1])
    np.save("tail.npy", images[[7, 7]])
    tables_by_file = {}
    for data in (folder, "reversed.npy", "tail.npy"):
        out = f"{Path(data).stem}.npz"
        assert vae("score", run, "--data", data, "--out", out, "--samples", 3).code == 0
        tables_by_file[Path(data).stem] = np.load(out)
    inside, backwards, tail = tables_by_file.values()
    for score in SCORES:
        np.testing.assert_allclose(backwards[score][::-1], inside[score], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(tail[score], inside[score][[7, 7]], rtol=1e-5, atol=1e-4)


def test_score_prints_and_shows_the_most_anomalous_images(vae: Vae, run: Path, folder: Path) -> None:
    outcome = vae("score", run, "--data", folder, "--out", "s.csv", "--samples", 2, "--threshold", 0.3, "-n", 6)
    assert outcome.code == 0, outcome.err
    rows = sorted(csv.DictReader(Path("s.csv").open()), key=lambda row: -float(row["nll"]))
    lines = outcome.err.splitlines()
    start = lines.index("highest nll, in nats:")
    for row, line in zip(rows[:5], lines[start + 1 :], strict=False):
        name, value, word, percentile = line.split()
        assert (name, word) == (row["name"], "percentile")
        assert float(value) == pytest.approx(float(row["nll"]), abs=0.006)
        assert float(percentile) == pytest.approx(float(row["nll_percentile"]), abs=0.06)
    page = Path("s.html").read_text("utf-8")
    places = [page.index(f"</small> {row['name']}</h3>") for row in rows[:6]]
    assert places == sorted(places)
    assert f"</small> {rows[6]['name']}</h3>" not in page
    assert page.count("data:image/png;base64,") == 3 * 6
    above = sum(row["anomaly"] == "True" for row in rows)
    assert page.count('class="card anomaly"') == min(6, above)
    assert f"{float(rows[0]['nll']):,.2f}" in page
    assert_rejected(vae("score", run, "--data", folder, "--out", "s.npz"), "--out = s.html: exists")


def test_names_are_escaped_on_the_page(vae: Vae, run: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    for name in ("<script>alert(1)<", "a&b", "new\nline", "{{ 7 * 7 }}"):
        Image.fromarray(np.full((9, 7), 99, "uint8")).save(tmp_path / "odd" / f"{name}.png")
    outcome = vae("score", run, "--data", "odd", "--out", "s.csv", "--samples", 1)
    assert outcome.code == 0, outcome.err
    page = Path("s.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;.png" in page
    assert "{{ 7 * 7 }}.png" in page
    assert "new\\nline.png" in page
    assert len(outcome.err.splitlines()[-4:]) == 4


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "INTERVAL", 0.02)
    monkeypatch.setattr(watching, "PATIENCE", 0.3)


def save_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 7), dtype="uint8")).save(path)


def read_rows(path: str = "w.csv") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def interrupt_after(condition: Callable[[], bool], *steps: Callable[[], None]) -> None:
    """Run the steps, and press Ctrl-C once the condition holds, or after 200 seconds."""

    def act() -> None:
        for step in steps:
            step()
        end = time.monotonic() + 200
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=act).start()


def wait_for_rows(count: int) -> Callable[[], bool]:
    return lambda: Path("w.csv").exists() and len(read_rows()) >= count


@pytest.mark.usefixtures("quick")
def test_watch_scores_new_files_like_the_table_and_resumes(vae: Vae, run: Path) -> None:
    def wait(count: int) -> None:
        while not wait_for_rows(count)():
            time.sleep(0.02)

    for index in range(3):
        save_image(Path(f"in/{index}.png"), index)
    words = ("score", run, "--watch", "in", "--out", "w.csv", "--samples", 3, "--threshold", 0.1)
    interrupt_after(wait_for_rows(4), lambda: wait(3), lambda: save_image(Path("in/more/late.png"), 9))
    outcome = vae(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines()[-1] == "stopped: 4 images scored, 0 not readable"
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["0.png", "1.png", "2.png", "more/late.png"]
    Path("in/more/late.png").rename("in/late.png")
    assert vae("score", run, "--data", "in", "--out", "t.csv", "--samples", 3, "--threshold", 0.1).code == 0
    expected = {row["name"]: row for row in read_rows("t.csv")}
    for row in read_rows():
        same = expected[Path(row["name"]).name]
        for score in SCORES:
            assert float(row[score]) == pytest.approx(float(same[score]), rel=1e-4, abs=1e-3)
        assert row["anomaly"] == same["anomaly"]
    # A restart scores only the file with a new name and the one that changed.
    before = Path("w.csv").read_text()
    save_image(Path("in/1.png"), 77)
    os.utime("in/1.png", (1, 1))
    interrupt_after(wait_for_rows(6))
    assert vae(*words).code == 0
    assert Path("w.csv").read_text().startswith(before)
    assert sorted(row["name"] for row in read_rows()[4:]) == ["1.png", "late.png"]
    other = vae(*words[:-1], 0.2)
    assert_rejected(other, "w.csv: exists, and was not written by this model with these settings")


@pytest.mark.usefixtures("quick")
def test_watch_survives_broken_and_growing_files(vae: Vae, run: Path) -> None:
    save_image(Path("in/good.png"), 0)
    save_image(Path("whole.png"), 1)
    whole = Path("whole.png").read_bytes()
    Path("in/text.png").write_text("no image")
    Path("in/empty.jpg").touch()
    Image.new("L", (20, 20)).save("in/large.png")
    Image.new("RGB", (7, 9)).save("in/color.png")

    def grow() -> None:
        time.sleep(0.2)
        Path("in/slow.png").touch()
        # Without its last bytes, which contain no pixels, the file could be decoded.
        for part in (whole[:25], whole[25:50], whole[50:-30], whole[-30:]):
            with Path("in/slow.png").open("ab") as opened:
                opened.write(part)
            time.sleep(0.08)

    messages: list[str] = []
    say = watching.say
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "say", lambda message: (messages.append(message), say(message)))
        interrupt_after(lambda: wait_for_rows(2)() and sum("not scored" in message for message in messages) >= 4, grow)
        outcome = vae("score", run, "--watch", "in", "--out", "w.csv", "--samples", 1)
    assert outcome.code == 0, outcome.err
    assert [row["name"] for row in read_rows()] == ["good.png", "slow.png"]
    reported = [line for line in outcome.err.splitlines() if line.startswith("not scored: ")]
    assert len(reported) == 4, reported
    for name in ("text.png", "empty.jpg", "large.png", "color.png"):
        assert sum(name in line for line in reported) == 1
    assert "20x20x1 (H x W x C): run expects 9x7x1" in next(line for line in reported if "large" in line)
    assert outcome.err.splitlines()[-1] == "stopped: 2 images scored, 4 not readable"


@pytest.mark.usefixtures("quick", "conditional_run")
def test_watch_conditions_files_on_their_folder_or_on_the_label(vae: Vae) -> None:
    for name in ("cat/a.png", "dog/a.png"):
        save_image(Path("in") / name, 5)
    words = ("score", "run", "--watch", "in", "--out", "w.csv", "--samples", 2)
    interrupt_after(wait_for_rows(2))
    assert vae(*words).code == 0
    scores = {row["name"]: float(row["nll"]) for row in read_rows()}
    assert scores["cat/a.png"] != scores["dog/a.png"]
    Path("w.csv").unlink()
    interrupt_after(wait_for_rows(2))
    assert vae(*words, "--label", "dog", "--force").code == 0
    for row in read_rows():
        assert float(row["nll"]) == pytest.approx(scores["dog/a.png"], rel=1e-5)


def test_invalid_watch_calls_are_rejected(vae: Vae, run: Path) -> None:
    Path("in").mkdir()
    words = ("score", run, "--watch", "in", "--out")
    assert_rejected(vae(*words, "w.npz"), "--out = w.npz: unknown format; choose a name that ends in .csv")
    assert_rejected(vae(*words, "w.csv", "--data", "in"), "--data: not available with --watch")
    assert_rejected(vae(*words, "w.csv", "--heat-maps", "h.png"), "--heat-maps: not available with --watch")
    assert_rejected(vae("score", run, "--watch", "nowhere", "--out", "w.csv"), "--watch = nowhere: not a folder")
    Path("w.csv").write_text("name,mine\n")
    assert_rejected(vae(*words, "w.csv", "--samples", 1), "w.csv: exists, and was not written by this model")
    assert Path("w.csv").read_text() == "name,mine\n"


@pytest.mark.slow
def test_kills_lose_no_row_and_repeat_none(run: Path) -> None:
    count = 60
    for index in range(count):
        save_image(Path(f"in/{index:03}.png"), index)
    words = ("score", str(run), "--watch", "in", "--out", "w.csv", "--samples", "2")
    code = "from keras_vae.cli import main, watching; watching.INTERVAL = 0.05; watching._CHUNK = 3; main()"
    rng, reported, kills = np.random.default_rng(0), set[str](), 0
    while len(reported) < count and kills < 12:
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(int(rng.integers(5, 25))):
            line = process.stdout.readline()
            if line:
                reported.add(line.split()[0])
            if len(reported) == count:
                break
        time.sleep(rng.random() * 0.02)
        process.kill()
        reported |= {line.split()[0] for line in process.stdout.read().splitlines()}
        process.wait()
        kills += 1
    names = [row["name"] for row in read_rows() if row["nll"]]
    print(f"{kills} kills, {len(names)} rows")
    assert len(names) == len(set(names))
    assert reported <= set(names), "a printed row must be in the table"
    assert len(names) == count
