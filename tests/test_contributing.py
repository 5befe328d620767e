"""The example of docs/own-component.md meets the contract of components."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import on_tensorflow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Write the example file of the guide to an empty folder, and return its path."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own-component.md").read_text("utf-8"), re.DOTALL)
    path = tmp_path / "my_parts.py"
    path.write_text(code, "utf-8")
    return path


def run(example: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that can import the example."""
    start = f"import sys; sys.path.insert(0, {str(example.parent)!r}); import my_parts\n"
    return subprocess.run(
        [sys.executable, "-c", start + program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@on_tensorflow("the guide does not depend on the backend")
def test_example_passes_the_contract_tests(example: Path) -> None:
    options = ["-v", "-p", "no:cacheprovider", "-n", "0", "tests/core/test_registry.py", "-k", "student-t"]
    finished = run(example, f"import pytest; sys.exit(pytest.main({options}))")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "3 passed" in finished.stdout


@on_tensorflow("the guide does not depend on the backend")
def test_example_has_the_log_density_and_the_distribution_of_scipy(example: Path) -> None:
    finished = run(
        example,
        """
import numpy as np
from keras import ops
from scipy import stats
from keras_vae import priors

distribution = my_parts.StudentT(freedom=4.0)(priors.PriorInputs(2, encode=None))
z = np.random.default_rng(0).normal(size=(7, 2)).astype("float32")
expected = stats.t(4.0).logpdf(z).sum(-1)
np.testing.assert_allclose(ops.convert_to_numpy(distribution.log_prob(z)), expected, rtol=1e-5)
samples = ops.convert_to_numpy(distribution.sample(5000, seed=1))
assert samples.shape == (5000, 2)
assert stats.kstest(samples.ravel(), stats.t(4.0).cdf).pvalue > 1e-3
""",
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
