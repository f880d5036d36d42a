"""The README's Python runs as it stands, and its generated parts are those of today."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_of_the_readme_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "redan.assess(" in block
    folder = tmp_path / "examples" / "fashion"
    folder.mkdir(parents=True)
    text = (ROOT / "examples" / "fashion" / "natural.yaml").read_text(encoding="utf-8")
    text = text.replace("mode: default", "mode: quick").replace("rows: 256", "rows: 64")
    (folder / "natural.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/*/report.json"))


def test_threat_model_of_the_readme_is_valid(tmp_path: Path) -> None:
    from redan.threat.file import read

    block, poisoner, customer = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "threat-model.yaml"
    path.write_text(block, encoding="utf-8")
    assert read(path).model.system.name == "garment-sorter"
    rows = "data: {test: {path: test.npz}, train: {path: train.npz, source: supplier}}"
    system = re.sub(r"data: .*", rows, block.partition("attackers:")[0])
    path.write_text(system + poisoner, encoding="utf-8")
    assert read(path).model.attackers[0].name == "supplier b"
    path.write_text(system + customer, encoding="utf-8")
    assert read(path).model.attackers[0].name == "customer"


@pytest.mark.parametrize("script", ["write_docs.py", "write_schema.py"])
def test_generated_files_are_up_to_date(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--check"])
    monkeypatch.setattr(sys, "path", [*sys.path])  # a script puts its own folders there
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / script), run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr()
