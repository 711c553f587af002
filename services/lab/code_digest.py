"""A digest of the code that makes something: what other code made is made anew."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path


def code_digest(package: str, *more: Path) -> str:
    """16 hexadecimal digits that change with any module directly in the package, and with more files."""
    digest = hashlib.sha256()
    for source in (*sorted(Path(str(resources.files(package))).glob("*.py")), *more):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
