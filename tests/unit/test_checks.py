"""Every check of `make check-style` fails on a tree that breaks its rule, and only then."""
import subprocess

import pytest

from conftest import ROOT

ROOMS = ("tools", "libckpt", "kernels", "formats", "verify", "reference-runner", "tests", "scripts")
GOOD = '#include "low.h"\n\nint low(int a)\n{\n    return a;   /* strcpy() in words */\n}\n'


@pytest.fixture
def tree(tmp_path):
    """A small tree that passes every check. Its READMEs name the files that tests add, too."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "README.md").write_text("`low.c`, `high`, `x*`.\n")
    (tmp_path / "build").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "libckpt/low.h").write_text("int low(int a);\n")
    (tmp_path / "libckpt/low.c").write_text(GOOD)
    (tmp_path / "formats/high.c").write_text('#include "libckpt/low.h"\n')
    (tmp_path / "libckpt/hub").mkdir()
    (tmp_path / "libckpt/hub/README.md").write_text("`hub.[ch]`\n")
    (tmp_path / "libckpt/hub/hub.h").write_text("int hub(int a);\n")
    return tmp_path


def run(check, tree):
    done = subprocess.run([ROOT / "scripts" / check, tree], capture_output=True, text=True)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr
    assert (done.returncode == 1) == bool(done.stdout)
    return done.stdout


@pytest.mark.parametrize("check", ["check-sizes", "check-includes", "check-banned",
                                   "check-folders", "check-literals"])
def test_a_good_tree_passes(check, tree):
    assert run(check, tree) == ""


BODY = "    a++;\n"
BAD = [
    ("check-sizes", "formats/x.c", "int f(int a)\n{\n" + 67 * BODY + "}\n", None),
    ("check-sizes", "formats/x.c", "int f(int a)\n{\n" + 68 * BODY + "}\n", "f has 71 lines"),
    ("check-sizes", "formats/x.c", "int a;\n" * 800, None),
    ("check-sizes", "formats/x.c", "int a;\n" * 801, "801 lines"),
    ("check-sizes", "formats/x.c", "/*" + 96 * "x" + "*/\n", None),
    ("check-sizes", "formats/x.c", "/*" + 97 * "x" + "*/\n", "101 columns"),
    ("check-sizes", "scripts/x", "#" * 101 + "\n", "101 columns"),
    ("check-sizes", "tests/x.py", "#" * 101 + "\n", "101 columns"),
    ("check-sizes", "formats/x.c", "int f(int a, int b, int c, int d,\n      int (*e)(int, int))\n"
     "{\n}\n", None),
    ("check-sizes", "formats/x.c", "int f(int a, int b, int c, int d, int e,\n      int g)\n{\n}\n",
     "f has 6 parameters"),
    ("check-sizes", "formats/x.c", "int f(int a) {\n}\n", "brace"),
    ("check-includes", "kernels/x.c", '#include "libckpt/low.h"\n', "kernels must not include"),
    ("check-includes", "kernels/x.c", '#include "../libckpt/low.h"\n', "kernels must not include"),
    ("check-includes", "kernels/x.c", '#include "low.h"\n', "is not a header of ours"),
    ("check-includes", "tools/x.c", '#include "low.h"\n', "is not a header of ours"),
    ("check-includes", "libckpt/hub/x.c", '#include "libckpt/low.h"\n', None),
    ("check-includes", "libckpt/x.c", '#include "libckpt/hub/hub.h"\n', "must not include"),
    ("check-includes", "libckpt/other/x.c", "int a;\n", "is not a room"),
    ("check-includes", "kernels/x.c", '/* #include "low.h" */\n', None),
    ("check-includes", "formats/x.c", '#include "nowhere.h"\n', "is not a header of ours"),
    ("check-includes", "libckpt/low.c", '#include <stdio.h>\n#include "low.h"\n', "own header"),
    ("check-banned", "formats/x.c", "void f(char *a)\n{\n    strcpy(a, a);\n}\n",
     "strcpy is banned"),
    ("check-banned", "verify/x.h", "static int f(void) { return atoi (0); }\n", "atoi is banned"),
    ("check-banned", "kernels/x.cu", "void f() { sprintf(0, 0); }\n", "sprintf is banned"),
    ("check-banned", "formats/x.c", 'const char *a = "system()"; int b = file_system(1);\n', None),
    ("check-literals", "verify/x.c", 'const char *a = "layers.0.attn.wo_a.weight";\n', "wo_a"),
    ("check-literals", "tools/x.c", 'int a = has("model.experts");\n', "model.experts"),
    ("check-literals", "tools/x.c", 'const char *a = "all experts but one";\n', None),
    ("check-literals", "verify/x.c", '#include "experts.h"\nint a;  /* "mtp.0" */\n', None),
    ("check-literals", "verify/x.c", 'const char *a = "experts";\n', None),
    ("check-literals", "formats/x.c", 'const char *a = "mtp.0.x";\n', "mtp.0.x"),
    ("check-literals", "reference-runner/x.c", 'const char *a = "mtp.0.x";\n', None),
    ("check-literals", "libckpt/digest.c", 'int a;\n', "nothing needs its line"),
    ("check-literals", "libckpt/digest.c", 'const char *a = "mtp.";\n', None),
    ("check-literals", "libckpt/digest.c", 'const char *a = "mtp.0.x";\n', "mtp.0.x"),
    ("check-folders", "libckpt/README.md", "`low`\n" * 30, None),
    ("check-folders", "libckpt/README.md", "`low`\n" * 31, "31 lines"),
    ("check-folders", "libckpt/README.md", "low\n", "'low.c' is not named"),
    ("check-folders", "libckpt/README.md", "`l*.c` `low_end.h`\n", "'low_end.h' is not there"),
    ("check-folders", "libckpt/README.md", "`l*.c` `hub.h` `ckpt-NAME.c` `f()`\n", None),
]


@pytest.mark.parametrize("check, path, text, complaint", BAD)
def test_a_rule_that_is_broken_is_named(check, path, text, complaint, tree):
    (tree / path).parent.mkdir(exist_ok=True)
    (tree / path).write_text(text)
    said = run(check, tree)
    assert said == "" if complaint is None else complaint in said and path in said


def test_formats_and_verify_do_not_know_each_other(tree):
    (tree / "verify/v.h").write_text("")
    (tree / "formats/x.c").write_text('#include "verify/v.h"\n')
    assert "formats must not include verify/v.h" in run("check-includes", tree)


def test_an_interface_member_may_have_more_parameters(tree):
    wide = "int {}(int a, int b, int c, int d, int e, int g)\n{{\n}}\n"
    (tree / "kernels/table.h").write_text(
        "struct t {\n    int (*wide)(int, int, int, int, int, int);\n};\n")
    (tree / "kernels/x.c").write_text(wide.format("wide_avx2"))
    assert run("check-sizes", tree) == ""
    (tree / "kernels/x.c").write_text(wide.format("other"))
    assert "other has 6 parameters" in run("check-sizes", tree)


@pytest.mark.parametrize("header, limit", [("xxhash.h", 1), ("openssl/evp.h", 2),
                                           ("libdeflate.h", 1), ("curl/curl.h", 1),
                                           ("pcre2.h", 1), ("zstd.h", 3)])
def test_a_library_is_known_to_few_files(header, limit, tree):
    for i in range(limit):
        (tree / f"libckpt/x{i}.c").write_text(f"#include <{header}>\n")
    assert run("check-includes", tree) == ""
    (tree / "formats/one_more.c").write_text(f"#include <{header}>\n")
    assert f"at most {limit}" in run("check-includes", tree)


def test_top_level_folders_are_fixed(tree):
    (tree / "src").mkdir()
    assert "src: not a top-level folder" in run("check-folders", tree)


def test_a_missing_folder_or_readme_is_named(tree):
    (tree / "verify/README.md").unlink()
    assert "verify/README.md: missing" in run("check-folders", tree)
    (tree / "verify").rmdir()
    assert "verify: this top-level folder is missing" in run("check-folders", tree)


def test_a_room_below_a_room_has_a_readme(tree):
    (tree / "libckpt/hub/README.md").unlink()
    assert "libckpt/hub/README.md: missing" in run("check-folders", tree)


def test_file_names_are_unique(tree):
    (tree / "tools/low.h").write_text("")
    assert "libckpt/low.h, tools/low.h: file names are unique" in run("check-folders", tree)


@pytest.mark.parametrize("check", ["check-sizes", "check-includes", "check-banned",
                                   "check-literals", "check-folders"])
@pytest.mark.parametrize("words", [["absent"], ["."], ["--help"], ["{root}", "b"]])
def test_a_check_of_nothing_is_no_success(check, words, tmp_path):
    done = subprocess.run([ROOT / "scripts" / check, *(w.format(root=ROOT) for w in words)],
                          cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{check}: expected one folder") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words, said", [
    ([], "BUILD, such as build, comes first"), (["style"], "BUILD, such as build, comes first"),
    (["style", "unit"], "BUILD, such as build, comes first"), (["build"], "no stage is given"),
    (["build", "style", "unti"], "'unti' is not a stage")])
def test_stages_need_a_build(words, said):
    """A stage that was taken for a build folder made one, and nothing was checked."""
    before = sorted(ROOT.iterdir())
    done = subprocess.run([ROOT / "scripts" / "check", *words], cwd=ROOT, capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"check: {said}; usage: scripts/check BUILD STAGE" in done.stderr
    assert sorted(ROOT.iterdir()) == before
