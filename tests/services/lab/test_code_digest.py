from __future__ import annotations

from pathlib import Path

from services.lab.code_digest import code_digest


def test_code_digest_changes_with_package_and_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("a = 1")
    second.write_text("a = 2")
    digests = {code_digest("shared"), code_digest("shared.synth"), code_digest("shared", first)}
    assert len(digests | {code_digest("shared", second)}) == 4
    assert code_digest("shared") == code_digest("shared")
