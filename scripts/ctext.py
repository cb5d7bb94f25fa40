"""What the checks share: the project's C files, and their text without comments and strings."""
import os
import re
import sys

ROOMS = ("tools", "libckpt", "kernels", "formats", "verify", "reference-runner")
FOLDERS = ROOMS + ("tests", "scripts")


def files(root, folders=FOLDERS, endings=(".c", ".h", ".cu", ".cuh")):
    """Paths relative to root, sorted."""
    found = []
    for folder in folders:
        for at, names, leaves in os.walk(os.path.join(root, folder)):
            names[:] = [n for n in names if n not in ("__pycache__", "data", "corpus")]
            found += [os.path.relpath(os.path.join(at, leaf), root) for leaf in leaves
                      if not endings or leaf.endswith(endings)]
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_only(text, keep_strings=False):
    """Comments (and strings) blanked, line numbers kept."""
    def blank(match):
        token = match.group()
        if token[0] in "\"'":
            return token if keep_strings else token[0] * 2
        return "\n" * token.count("\n") or " "
    return TOKEN.sub(blank, text)


def report(check, complaints):
    """Print them and exit: 1 when there is one."""
    for line in complaints:
        print(f"{check}: {line}")
    sys.exit(1 if complaints else 0)


def root_argument():
    """The tree to check: the argument, or the one this script lies in."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    root = sys.argv[1] if len(sys.argv) > 1 else here
    if len(sys.argv) > 2 or not any(os.path.isdir(os.path.join(root, f)) for f in FOLDERS):
        name = os.path.basename(sys.argv[0])
        print(f"{name}: expected one folder that has {', '.join(FOLDERS)}, got "
              f"{' '.join(map(repr, sys.argv[1:]))}", file=sys.stderr)
        sys.exit(2)
    return root
