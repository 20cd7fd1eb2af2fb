"""Lint finds each kind of offence in a small tree of its own, and nothing in a tree without one."""
import os
import shutil
import subprocess

import pytest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
HEADER = "/* a.h -- what it is for. */\n#pragma once\nint core_a_get(int x);\n"
SOURCE = '#include "core/a.h"\n\nint core_a_get(int x)\n{\n\treturn x;\n}\n'


@pytest.fixture
def tree(tmp_path):
	for folder in ("tools", "cmake"):
		shutil.copytree(os.path.join(ROOT, folder), tmp_path / folder)
	write(tmp_path, "src/core/a.h", HEADER)
	write(tmp_path, "src/core/a.c", SOURCE)
	return tmp_path


def write(tree, path, text):
	(tree / path).parent.mkdir(parents=True, exist_ok=True)
	(tree / path).write_text(text)


def run(tree, tool, **environment):
	return subprocess.run([tree / "tools" / tool], capture_output=True, text=True, check=False,
		env={**os.environ, **environment})


def function(name, parameters="void", body="\treturn;\n"):
	return f"/* {name}.c -- for the test. */\nvoid {name}({parameters});\nvoid {name}({parameters})\n{{\n{body}}}\n"


@pytest.mark.parametrize("tool", ["check_layers", "check_style", "check_compile", "check_generated"])
def test_accepts_a_clean_tree(tree, tool):
	answer = run(tree, tool)
	assert (answer.returncode, answer.stdout) == (0, "")


BRANCHES = "".join(f"\tif (x == {n})\n\t\tx++;\n" for n in range(20))
CASES = "".join(f"\tcase {n}:\n\t\treturn;\n" for n in range(25))


@pytest.mark.parametrize("text, complaint", [
	(function("b", body="\t;\n" * 68), "function of 71 lines"),
	(function("b", body="\t;\n" * 800), "805 lines"),
	(function("b", "int x", BRANCHES), "complexity 21"),
	(function("b", "int x", "\tswitch (x) {\n" + CASES + "\t}\n"), "complexity 26"),
	(function("b", "int a, int b, int c, int d, int e, int f"), "6 parameters"),
	(function("b", body="        return;\n"), "indented with blanks"),
	(function("b", body="\t/* " + "x" * 108 + " */\n"), "122 columns"),
	(function("b", body="\treturn;  \n"), "blanks at the end"),
	(function("b", body="\tfree(0);\n"), "free() is banned"),
	(function("b", body="\tstrcpy (0, 0);\n"), "strcpy() is banned"),
	(function("b", body="\t/* TO" "DO */\n"), "unfinished work"),
	(function("b", body="\t/* see /wo" "rk/main */\n"), "path of one machine"),
	("void b(void);\n", "a file opens with a comment"),
	("/* b.c */\nvoid b(void) {\n}\n", "brace of a function"),
	("/* b.c */\nvoid b(void) { }\n", "brace of a function"),
	("/* b.c */\nint b;", "no newline at the end"),
])
def test_style_finds(tree, text, complaint):
	write(tree, "src/net/b.c", text)
	answer = run(tree, "check_style")
	assert answer.returncode == 1
	assert complaint in answer.stdout
	assert "src/net/b.c:" in answer.stdout


@pytest.mark.parametrize("text", [
	function("b", body="\t;\n" * 67),
	function("b", "int a, int (*g)(int, int), int c, int d, int e"),
	function("b", "int a,\n       int b", "\tputs(\"a\"\n\t     \"b\");\n"),
	function("b", "int x", "\tswitch (x) { /* flat switch */\n" + CASES + "\t}\n"),
	function("b", body="\tputs(\"free(x)\");      /* free(x) */\n\tx->free(1);\n"),
	"/* b.c -- a table. */\nint b[] = {\n" + "\t1,\n" * 900 + "};\n",
	"/* b.c -- alignment. */\nstruct b {\n\t_Alignas(64) int x;\n\t_Atomic(int) y;\n};\n",
])
def test_style_accepts(tree, text):
	write(tree, "src/net/b.c", text)
	answer = run(tree, "check_style")
	assert (answer.returncode, answer.stdout) == (0, "")


def test_style_wants_headers_guarded_and_inline_functions_short(tree):
	write(tree, "src/core/b.h", "/* b.h */\nstatic inline void b(void)\n{\n" + "\t;\n" * 20 + "}\n")
	answer = run(tree, "check_style")
	assert "no #pragma once" in answer.stdout
	assert "function of 23 lines; the limit is 15" in answer.stdout


@pytest.mark.parametrize("path, include, complaint", [
	("src/core/b.c", '"net/a.h"', "it lies to the right"),
	("src/control/b.c", '"cli/a.h"', "it lies to the right"),
	("src/cli/b.c", '"a.h"', "name the room"),
	("src/http/b.c", '"../core/a.h"', "name the room"),
	("src/http/b.c", '"other/a.h"', "unknown room"),
	("src/other/b.c", '"core/a.h"', "unknown room"),
	("src/http/b.c", "<openssl/evp.h>", "may be included only by src/core/crypto.c"),
	("src/control/rest.c", "<sqlite3.h>", "may be included only by src/control/store_sqlite.c"),
	("src/http/uri.c", "<pcre2.h>", "may be included only by src/core/regex.c"),
	("src/proxy/b.c", "<ares.h>", "may be included only by src/net/resolver.c"),
	("src/control/b.c", "<yaml.h>", "may be included only by src/cli/yaml.c"),
])
def test_layers_finds(tree, path, include, complaint):
	write(tree, path, f"/* b */\n#  include {include}\n")
	answer = run(tree, "check_layers")
	assert answer.returncode == 1
	assert complaint in answer.stdout
	assert answer.stdout.startswith(path + ":")


def test_layers_accepts_the_doors_and_the_left(tree):
	write(tree, "src/core/crypto.c", '#include <openssl/evp.h>\n#include "core/a.h"\n')
	write(tree, "src/main.c", '#include "cli/cli.h"\n#include "core/a.h"\n')
	answer = run(tree, "check_layers")
	assert (answer.returncode, answer.stdout) == (0, "")


@pytest.mark.parametrize("path, text", [
	("src/core/b.h", "#pragma once\nsize_t b(void);\n"),
	("src/core/b.c", "long b(unsigned x);\nlong b(unsigned x)\n{\n\tunsigned char c = x;\n\n\treturn c;\n}\n"),
	("src/net/b.c", "int b(int x);\nint b(int x)\n{\n\tint y;\n\n\treturn 0;\n}\n"),
])
def test_compile_finds(tree, path, text):
	write(tree, path, text)
	answer = run(tree, "check_compile")
	assert answer.returncode == 1
	assert f"{path} does not compile cleanly" in answer.stdout


def test_generated_finds_a_stale_page_and_renews_it(tree):
	write(tree, "sluice", '#!/bin/sh\necho "$@ now"\n')
	(tree / "sluice").chmod(0o755)
	page = "<!-- generated by: sluice policy classes -->\npolicy classes before\n"
	write(tree, "docs/reference/classes.md", page)
	answer = run(tree, "check_generated", SLUICE_RELEASE_BIN="./sluice")
	assert answer.returncode == 1
	assert "docs/reference/classes.md: out of date" in answer.stdout
	subprocess.run([tree / "tools" / "check_generated", "--write"], check=True,
		env={**os.environ, "SLUICE_RELEASE_BIN": "./sluice"})
	assert run(tree, "check_generated", SLUICE_RELEASE_BIN="./sluice").returncode == 0
	assert "policy classes now" in (tree / "docs/reference/classes.md").read_text()


def test_new_policy_writes_a_class_that_lint_accepts(tree):
	shutil.copytree(os.path.join(ROOT, "src"), tree / "src", dirs_exist_ok=True)
	subprocess.run([tree / "tools" / "new_policy", "JWTWindow2"], check=True, stdout=subprocess.DEVNULL)
	rows = (tree / "src/policy/policies.def").read_text().splitlines()
	assert rows[-1] == "POLICY(jwt_window2)"
	compiled = subprocess.run([tree / "tools/check_compile", "src/policy/jwt_window2.c"], capture_output=True,
		text=True, check=False)
	assert (compiled.returncode, compiled.stdout) == (0, "")
	again = subprocess.run([tree / "tools" / "new_policy", "JWTWindow2"], capture_output=True, text=True, check=False)
	assert again.returncode == 1
	assert "nothing was written" in again.stderr


def test_new_policy_refuses_a_name_of_another_shape(tree):
	answer = subprocess.run([tree / "tools" / "new_policy", "rate_limit"], capture_output=True, text=True, check=False)
	assert answer.returncode == 2
	assert "MaintenanceWindow" in answer.stderr
