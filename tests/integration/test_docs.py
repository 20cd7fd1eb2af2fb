"""Prose that names the code names what is there: links lead somewhere, functions, files and settings exist."""
import re

import pytest
from backends import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/*/README.md")])
ABOUT_CODE = [page for page in PAGES if page.name == "ARCHITECTURE.md"
	or {"design", "src"} & set(page.relative_to(ROOT).parts)]
SOURCES = [path for folder in ("src", "tests", "tools") for path in (ROOT / folder).rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def words():
	"""Every word of the sources, and every file name."""
	found = {path.name for path in SOURCES}
	for path in SOURCES:
		if path.suffix in (".c", ".h", ".def") and "corpus" not in path.parts:
			found.update(re.findall(r"\w+", path.read_text()))
	return found


def name_of(page):
	return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
	for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
		if not target.startswith(("http://", "https://", "mailto:")):
			assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", ABOUT_CODE, ids=name_of)
def test_names_of_functions_and_files_exist(page, words):
	text = page.read_text()
	code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.S))
	names = set(re.findall(r"\b[a-z][a-z0-9]*_[a-z0-9_]*[a-z0-9]\b(?!\*)(?!\.\w)", code))
	names |= set(re.findall(r"\b(\w+)\(\)", text)) | set(re.findall(r"\bstruct (\w+)", code))
	files = set(re.findall(r"\b[a-z][a-z0-9_]*\.(?:c|h|def)\b", text))
	# Names of the policy to come that a guide makes up.
	missing = {name for name in names | files if name not in words and not name.startswith(("maintenance_window", "test_"))}
	assert not missing, f"{name_of(page)} names what is not there: {sorted(missing)}"


def test_architecture_stays_short():
	assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 300


@pytest.mark.parametrize("page", sorted(ROOT.glob("src/*/README.md")), ids=name_of)
def test_a_room_is_told_in_60_lines(page):
	assert len(page.read_text().splitlines()) <= 60


def test_every_room_has_its_page():
	rooms = [folder for folder in (ROOT / "src").iterdir() if any(folder.glob("*.c"))]
	assert len(rooms) >= 7
	assert all((folder / "README.md").exists() for folder in rooms), rooms


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/reference/*.md")), ids=name_of)
def test_the_reference_names_things_in_english(page):
	for article, thing in re.findall(r"\bId of (an?) (\w+)", page.read_text()):
		assert article == ("an" if thing[0].lower() in "aeiou" else "a"), f"Id of {article} {thing}"
		assert thing.islower(), f"{thing} is a name of the code"
