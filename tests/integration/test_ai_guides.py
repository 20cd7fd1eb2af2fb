"""docs/guide/ai-quickstart.md, ai-budget.md and ai-reliability.md, literally: every command runs, and prints what the page says."""
import pytest
from backends import ROOT
from gw import COMPLAINTS
from shell import START, STOP, run_blocks
from test_quickstart import fits, read_blocks

PAGES = ["ai-quickstart", "ai-budget", "ai-reliability"]
# As a checkout of the project has it; the rest is run as it stands.
EXAMPLES = f"python3 {ROOT}/docs/stand-ins/"


@pytest.mark.parametrize("page", PAGES)
def test_the_page_prints_what_it_says(page, tmp_path):
	blocks = read_blocks((ROOT / f"docs/guide/{page}.md").read_text())
	scripts = [START if commands.strip() == "make run" else commands.replace("python3 docs/stand-ins/", EXAMPLES) for commands, _ in blocks]
	assert blocks[0][0].strip() == "make run" and len(blocks) >= 5
	outputs = run_blocks([*scripts, STOP], tmp_path)
	for (commands, expected), output in zip(blocks[1:], outputs[1:]):
		assert expected is not None, f"nothing says what these print: {commands}"
		want, have = expected.rstrip().split("\n"), output.rstrip().split("\n")
		assert len(want) == len(have) and all(map(fits, want, have)), f"{commands}\nprinted\n{output}\nand not\n{expected}"
	log = (tmp_path / "server.log").read_bytes()
	assert not COMPLAINTS.search(log), log.decode("latin-1")[-4000:]
	assert (tmp_path / "server.status").read_text() == "0\n", log.decode("latin-1")[-4000:]
