"""Who may import whom, what must stay light, and that nothing grows past reading."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import refeed

ROOT = Path(refeed.__file__).parent
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"}
ALLOWED = {
    "core": set(),
    "policies": {"core"},
    "conformance": {"core", "families.regression"},
    "theory": set(),
    "families": {"core"},
    "metrics": {"core"},
    "workspace": {"core"},
    "studies": {"core", "workspace", "catalogue", "report.results"},
    "report": {"core.errors", "workspace", "theory"},
    "cli": {"core", "workspace", "studies", "report", "catalogue", "theory", "conformance"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if node.module == "refeed" else [node.module]


def test_every_folder_has_a_rule():
    assert set(ALLOWED) == FOLDERS


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_imports_go_one_way(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for name in imports(path):
            if not name.startswith("refeed."):
                continue
            inner = name.removeprefix("refeed.")
            allowed = {folder, *ALLOWED[folder]}
            assert any(inner == a or inner.startswith(f"{a}.") for a in allowed), f"{path.relative_to(ROOT)} imports {name}"


def test_a_family_never_imports_another():
    families = [path for path in (ROOT / "families").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for family in families:
        for path in family.rglob("*.py"):
            for name in imports(path):
                if name.startswith("refeed.families."):
                    assert name.split(".")[2] == family.name, f"{path} imports {name}"


def loaded_after(code):
    script = f"import sys\n{code}\nprint(*sorted(m.partition('.')[0] for m in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["core.loop", "policies", "theory", "workspace", "studies", "report", "catalogue"])
def test_it_imports_without_torch(module):
    assert not {"torch", "transformers"} & loaded_after(f"import refeed.{module}")


def test_theory_imports_nothing_of_ours():
    code = "import refeed.theory, sys; assert not [m for m in sys.modules if m.startswith('refeed.') and 'theory' not in m]"
    loaded_after(code)


def test_help_imports_nothing_heavy():
    code = "sys.argv = ['refeed', '--help']\nfrom refeed.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    heavy = {"numpy", "scipy", "pyarrow", "pydantic", "altair", "torch", "transformers", "vl_convert"}
    assert not heavy & loaded_after(code)


def test_no_file_grows_past_reading():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
