"""Check that the tests catch ten deliberate faults, each in a different package.

    python tools/mutation_check.py              # all faults
    python tools/mutation_check.py data models  # those of some packages

For each fault, the program changes one expression in a copy of keras-vae, and runs the quick tests of a file until one
of them fails. It prints which test caught the fault, and exits with code 1 if a fault was not caught. Tools such as
mutmut change every expression, which would take far longer.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BACKEND_VARIABLES = ("KERAS_BACKEND", "KERAS_VAE_TEST_BACKEND")


class Fault(NamedTuple):
    """A wrong expression.

    Args:
        file: A module of `keras_vae`; its first folder is the package.
        correct: A text that occurs once in the module.
        wrong: Its replacement.
        tests: A file of tests.
        description: The effect of the fault.
    """

    file: str
    correct: str
    wrong: str
    tests: str
    description: str

    @property
    def package(self) -> str:
        """The package that contains the module."""
        return self.file.partition("/")[0]


FAULTS = (
    Fault(
        "core/files.py",
        "temporary.unlink(missing_ok=True)",
        "pass",
        "core/test_files.py",
        "unfinished files remain after an error",
    ),
    Fault(
        "data/dataset.py",
        "np.split(order, [num_test, num_held_out])",
        "np.split(order, [num_validation, num_held_out])",
        "data/test_dataset.py",
        "the sizes of the test and validation splits are exchanged",
    ),
    Fault(
        "distributions/kl.py",
        "ops.exp(excess) + distance - 1.0 - excess",
        "ops.exp(excess) + distance - 1.0 + excess",
        "distributions/test_kl.py",
        "wrong sign in the KL divergence of two normals",
    ),
    Fault(
        "components/objectives/bounds.py",
        "ops.logsumexp(grouped, axis=-1) - math.log(self.samples)",
        "ops.logsumexp(grouped, axis=-1)",
        "components/test_objectives.py",
        "the IWAE bound is a sum instead of a mean",
    ),
    Fault(
        "networks/convolutions.py",
        "crop = (taps - stride) // 2",
        "crop = (taps - stride + 1) // 2",
        "networks/test_convolutions.py",
        "transposed convolutions are shifted by a pixel",
    ),
    Fault(
        "models/importance_sampling.py",
        "log_sum - np.log(self.samples)",
        "log_sum",
        "models/test_importance_sampling.py",
        "estimates of log p(x) grow with the number of samples",
    ),
    Fault(
        "runs/run.py",
        "self._model_file.is_file() and not self.checkpoint_file.is_file()",
        "self._model_file.is_file()",
        "runs/test_run.py",
        "an interrupted run counts as complete",
    ),
    Fault(
        "training/callbacks.py",
        "row[MONITORED] == min(self.metrics[MONITORED])",
        "row[MONITORED] == max(self.metrics[MONITORED])",
        "training/test_validation.py",
        "the weights of the worst epoch are kept",
    ),
    Fault(
        "evaluation/set_distances.py",
        "squares - 2 * np.linalg.svdvals",
        "squares - np.linalg.svdvals",
        "evaluation/test_set_distances.py",
        "wrong factor in the Fréchet distance",
    ),
    Fault(
        "cli/parsing.py",
        "return height, width",
        "return width, height",
        "cli/test_data_pack.py",
        "--image-size exchanges height and width",
    ),
)


def main() -> None:
    """Run the tests for each fault, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="*", help="packages; all by default")
    packages = parser.parse_args().package
    if unknown := set(packages) - {fault.package for fault in FAULTS}:
        parser.error(f"no fault in: {', '.join(sorted(unknown))}")
    missed = 0
    print("| package | fault | caught by | seconds |\n|---|---|---|---|")
    for fault in FAULTS:
        if not packages or fault.package in packages:
            start = time.perf_counter()
            if broken := failed_test(fault, is_made=False):
                sys.exit(f"{broken} fails without a fault; mend it first")
            found = failed_test(fault)
            missed += found is None
            cells = (fault.package, fault.description, f"`{found}`" if found else "**no test**")
            print("|", " | ".join(cells), f"| {time.perf_counter() - start:.0f} |", flush=True)
    sys.exit(missed > 0)


def failed_test(fault: Fault, *, is_made: bool = True) -> str | None:
    """Return the first test that fails, or None if all of them pass.

    Args:
        fault: The fault.
        is_made: Whether the fault is made, or the copy of the package remains as it is.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-check-") as folder:
        shutil.copytree(ROOT / "src" / "keras_vae", Path(folder) / "keras_vae")
        module = Path(folder) / "keras_vae" / fault.file
        text = module.read_text("utf-8")
        if text.count(fault.correct) != 1:
            sys.exit(f"{fault.file}: {fault.correct!r} does not occur once; correct the fault in {Path(__file__).name}")
        if is_made:
            module.write_text(text.replace(fault.correct, fault.wrong), "utf-8")
        # The copy precedes the package that is installed.
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        # Without a backend, the tests that need one and those that need none both run.
        environment = {name: value for name, value in os.environ.items() if name not in BACKEND_VARIABLES}
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            f"tests/{fault.tests}",
        ]
        finished = subprocess.run(
            words, cwd=ROOT, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
    if finished.returncode == 0:
        return None
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", finished.stdout, re.MULTILINE)
    if failed is None:
        sys.exit(f"tests/{fault.tests} did not run:\n{finished.stdout[-2000:]}{finished.stderr}")
    return failed[1].removeprefix("tests/")


if __name__ == "__main__":
    main()
