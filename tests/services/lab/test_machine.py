from __future__ import annotations

import platform
import subprocess
import sys

from services.lab.machine import machine

PEAKS = """
import numpy as np
from services.lab.machine import peak_rss_bytes
before = peak_rss_bytes()
np.ones(100 << 20, np.uint8)  # let go at once
print(before, peak_rss_bytes())
"""


def test_peak_memory_remembers_what_was_let_go() -> None:
    answer = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, check=True, text=True)
    before_bytes, after_bytes = map(int, answer.stdout.split())
    assert 90 << 20 < after_bytes - before_bytes < 110 << 20
    assert 0 < before_bytes < 200 << 20


def test_machine_names_what_figures_depend_on() -> None:
    found = machine("numpy", "no-such-package")
    assert found["python"] == platform.python_version()
    assert int(found["cores"]) > 0
    assert float(found["load_1min"]) >= 0
    assert found["cpu"]
    assert "no-such-package" not in found
    assert found["numpy"][0].isdigit()
