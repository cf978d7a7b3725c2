"""The README's examples are run, its links lead somewhere, and its tables are those of the program."""

import re
from pathlib import Path

import pytest

from sweeper.study import load_study
from tests.tiny_folder import make_backbone, make_data

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_backbone(tmp_path / "models" / "my-encoder")
    make_data(tmp_path)
    (tmp_path / "train.tsv").rename(tmp_path / "reviews.tsv")
    return tmp_path


def test_the_study_file_is_one(folder: Path) -> None:
    [text] = blocks("yaml")
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    study = load_study(file)
    assert study.name == "reviews"
    assert study.searched == ("bottleneck_dim", "activation", "placement", "layers", "learning_rate")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if not ((ROOT / page).parent / link.split("#")[0]).exists()]
    assert not missing


def test_every_command_is_in_the_table() -> None:
    import typer

    from sweeper.cli import app

    group = typer.main.get_command(app)
    assert sorted(group.commands) == sorted(re.findall(r"^\| `sweeper (\w+)", README, re.MULTILINE))


def test_every_command_shown_exists() -> None:
    """What the README tells a reader to type: make targets that there are, and commands that there are."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z][a-z-]+)", "\n".join(re.findall(r"`([^`\n]+)`", README))))
    targets |= set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks("bash")), re.MULTILINE))
    assert "quickstart" in targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
