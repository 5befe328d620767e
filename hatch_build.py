"""Build hook: the description on a package index is the README, without links that work only in the repository."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?![a-z]+:|#)(?P<path>[^)\s]+)\)")
"""A link to a file of the repository, or an image from it."""


class CustomMetadataHook(MetadataHookInterface):
    """Sets the description of the package."""

    def update(self, metadata: dict) -> None:
        """Set `readme`. `project.urls.Repository` in pyproject.toml is the address of a public repository."""
        readme = (Path(self.root) / "README.md").read_text("utf-8")
        text = described(readme, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def described(readme: str, repository: str | None = None) -> str:
    """Return a README whose relative links are absolute, or, without a repository, are replaced by their texts.

    Images are left out without a repository.

    Args:
        readme: Text in Markdown.
        repository: Address of the repository, such as `https://github.com/OWNER/keras-vae`.
    """

    def replaced(link: re.Match[str]) -> str:
        if repository is None:
            return "" if link["image"] else link["text"]
        view = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({repository}/{view}/HEAD/{link['path']})"

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(replaced, readme))
