"""Scripts and styles of the pages."""

from importlib import resources


def asset(name: str) -> str:
    """Return the content of a file in this folder.

    Args:
        name: Name of the file.
    """
    return resources.files(__name__).joinpath(name).read_text("utf-8")
