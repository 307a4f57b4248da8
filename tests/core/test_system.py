"""Heavy libraries are imported without collecting garbage, and what they brought is left alone afterwards."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process


def said_by(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_no_garbage_is_collected_in_heavy_imports_and_what_they_brought_is_kept_out_of_it() -> None:
    program = (
        "import gc; from studio.core.system import heavy_imports\n"
        "with heavy_imports():\n    brought = [[] for _ in range(1000)]; print(gc.isenabled())\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    assert said_by(program) == ["False", "True", "True"]


def test_garbage_is_collected_again_where_an_import_fails() -> None:
    program = (
        "import gc; from studio.core.system import heavy_imports\n"
        "try:\n    with heavy_imports(): import there_is_no_such_library\n"
        "except ImportError: print(gc.isenabled())"
    )
    assert said_by(program) == ["True"]


def test_nothing_is_frozen_where_torch_is_there_already() -> None:
    program = (
        "import gc, sys; from studio.core.system import heavy_imports\n"
        "sys.modules['torch'] = sys\n"
        "with heavy_imports(): print(gc.isenabled())\n"
        "print(gc.get_freeze_count())"
    )
    assert said_by(program) == ["True", "0"]
