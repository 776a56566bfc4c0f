"""House rules that a machine can check, read from the sources without importing them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "pellucid"
FILES = sorted(SRC.rglob("*.py"))

# A module may import what stands in a line above its own, and its own package. pellucid/__init__.py and
# __main__.py may import all.
ORDER = [
    {"_types", "errors"},
    {"_repr"},
    {"canonical", "files", "shapes"},
    {"random"},
    {"data", "functional"},
    {"filters", "metrics", "novelty", "optim", "schedules"},
    {"nn"},
    {"models"},
    {"compiled"},
    {"engines"},
    {"interop"},
    {"arithmetic", "host", "model", "summary"},
    {"report"},
    {"training"},
    {"explain", "testing"},
    {"benchmark", "lessons"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
MAY_DATA_IMPORT = {"_repr", "_types", "errors", "shapes", "random", "data"}


def relative(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    """The first name below pellucid: a package's or a module's."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def for_types_only(module: ast.Module) -> set[ast.AST]:
    """Everything below `if TYPE_CHECKING:`."""
    return {
        inner
        for node in ast.walk(module)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }


def rooms_imported(path: Path) -> set[str]:
    module = tree(path)
    ignored = for_types_only(module)
    names = set()
    for node in ast.walk(module):
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "pellucid":
            names |= {f"pellucid.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("pellucid.")}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_one_way(path):
    here = room(path)
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree(path))), "relative import"
    if here in ("__init__", "__main__"):
        return
    assert here in RANK, f"{here} has no place in the order of imports; add it to ORDER in this file"
    wrong = {name for name in rooms_imported(path) if name != here and not RANK.get(name, -1) < RANK[here]}
    assert not wrong, f"{relative(path)} imports {sorted(wrong)}, which stand beside or above it"
    if here == "data":
        assert rooms_imported(path) <= MAY_DATA_IMPORT


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_assert_and_no_print(path):
    lines = []
    for node in ast.walk(tree(path)):
        is_print = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
        if isinstance(node, ast.Assert) or (is_print and room(path) != "cli"):
            lines.append(node.lineno)
    assert not lines, f"{relative(path)} has assert or print in lines {lines}"


# What could make a file run code. Exceptions: testing.py pickles the user's own layer to see whether a call changed
# it; two files import this package's own modules by the names that stand in them.
RUNS_CODE = re.compile(
    r"(?:c?pickle|marshal|shelve|dill|cloudpickle|joblib|runpy|code|codeop|subprocess|yaml|imp|importlib\.machinery"
    r"|eval|exec|compile|__import__|(?:importlib\.)?import_module|execfile|os\.(?:system|popen|exec\w*|spawn\w*|fork)"
    r"|(?:np|numpy)\.(?:load|fromfile|memmap|lib\.format)|torch\.load|ast\.literal_eval|literal_eval)(?:\.\w+)*"
)
MAY_RUN_CODE = {
    "testing.py": {"pickle", "pickle.dumps"},
    "__init__.py": {"importlib.import_module"},
    "cli/app.py": {"importlib.import_module"},
    # The proof of an export: the file that is about to be written runs first, in memory.
    "interop/torch.py": {"compile", "exec"},
    # The benchmark runs its own contestants, and reads what it has written for them.
    "benchmark/contestants.py": {"subprocess", "subprocess.Popen"},
    "benchmark/startup.py": {"subprocess", "subprocess.run"},
    "benchmark/peers/worker.py": {"importlib.import_module", "np.load"},
}


def what_runs_code(module: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call):
            names.add(ast.unparse(node.func))
        names |= {str(k.value.value) for k in getattr(node, "keywords", ()) if k.arg == "allow_pickle"} - {"False"}
    return {name for name in names if RUNS_CODE.fullmatch(name) or name == "True"}


@pytest.mark.capability("H23")
@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_could_run_what_a_file_says(path):
    assert what_runs_code(tree(path)) <= MAY_RUN_CODE.get(relative(path), set())


def test_what_runs_code_is_found():
    lines = ["import pickle", "from pickle import loads", "eval(x)", "np.load(f)", "os.system(x)", "import_module(x)"]
    lines += ["importlib.import_module(x)", "__import__(x)", "f(x, allow_pickle=True)", "from ast import literal_eval"]
    assert all(what_runs_code(ast.parse(line)) for line in lines)
    assert not what_runs_code(ast.parse("re.compile(x); f(allow_pickle=False); load(x); model.eval(); import json"))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_names_machine_paths(path):
    assert not re.search(r"/(?:home|root|Users)/\w", path.read_text(encoding="utf-8"))


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(body: list[ast.stmt]) -> list[Definition]:
    return [node for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def is_overload(node: Definition) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_public_names_are_documented(path):
    module = tree(path)
    if module.body:
        assert ast.get_docstring(module), f"{relative(path)} has no docstring"
    missing = [n.name for n in public(module.body) if not is_overload(n) and not ast.get_docstring(n)]
    assert not missing, f"{relative(path)}: no docstring for {missing}"


def documented(node: Definition) -> list[str] | None:
    """Names in the Args section of a docstring, or None without one."""
    found = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", ast.get_docstring(node) or "", re.MULTILINE)
    return re.findall(r"^ {4}\*{0,2}(\w+)(?: \([^)]*\))?:", found[1], re.MULTILINE) if found else None


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool) -> list[str]:
    a = node.args
    first = [p.arg for p in (*a.posonlyargs, *a.args)]
    if is_method and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list):
        first = first[1:]
    stars = [[p.arg] if p else [] for p in (a.vararg, a.kwarg)]
    return [*first, *stars[0], *[p.arg for p in a.kwonlyargs], *stars[1]]


def fields(node: ast.ClassDef) -> list[str]:
    return [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
        and not ast.unparse(item.annotation).startswith("ClassVar")
        and not (item.value and "init=False" in ast.unparse(item.value))
    ]


def signature(node: Definition, is_method: bool = False) -> list[str] | None:
    """Names of the arguments; None where a class inherits its constructor."""
    if not isinstance(node, ast.ClassDef):
        return parameters(node, is_method)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return parameters(item, is_method=True)
    return fields(node) or None


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_documented_arguments_are_the_signature(path):
    wrong = []
    for node in public(tree(path).body):
        inner = public(node.body) if isinstance(node, ast.ClassDef) else []
        for item, is_method in [(node, False), *((method, True) for method in inner)]:
            names, expected = documented(item), signature(item, is_method)
            if names is not None and expected is not None and names != expected:
                wrong.append(f"{item.name}: Args names {names}, the signature {expected}")
    assert not wrong, f"{relative(path)}: " + "; ".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_all_is_sorted(path):
    """Constants, then classes, then functions, as ruff sorts it."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            kinds = [(0 if n.isupper() and len(n) > 1 else 1 if n[:1].isupper() else 2, n) for n in names]
            assert kinds == sorted(set(kinds)), f"{relative(path)}: __all__ is not sorted or names one twice"


EXAMPLE = '''
class Thing:
    """A thing.

    Args:
        a: First, on
            two lines: with a colon.
        *rest: The rest.
        b (int): Last.

    Raises:
        ValueError: Never.
    """

    def __init__(self, a, *rest, b=1): ...

    def act(self, x):
        """Act.

        Args:
            y: Not its name.
        """
'''


def test_the_reading_of_docstrings():
    thing = ast.parse(EXAMPLE).body[0]
    assert documented(thing) == signature(thing) == ["a", "rest", "b"]
    (act,) = public(thing.body)
    assert (documented(act), signature(act, is_method=True)) == (["y"], ["x"])
    assert documented(ast.parse("def f(): 'No section.'").body[0]) is None
