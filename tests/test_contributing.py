"""What CONTRIBUTING tells a newcomer works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import on_tensorflow

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@on_tensorflow("the guide says nothing about backends")
def test_part_of_the_guide_passes_the_contract() -> None:
    """The example is added to a copy of `priors.py` in memory, and the contract tests run on it."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)
    program = f"""
import math, sys
import pytest
from keras_vae.components import priors
from keras_vae.distributions.latent import Seed
vars(priors).update(math=math, Seed=Seed)
exec(compile({code!r}, "CONTRIBUTING.md", "exec"), vars(priors))
sys.exit(pytest.main(["-v", "-p", "no:cacheprovider", "-n", "0", "tests/test_parts.py", "-k", "prior-student"]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
