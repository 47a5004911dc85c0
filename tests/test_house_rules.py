"""The rules of the house: who imports whom, what is never called, how long files are, how fast it starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from highlevel.ir import REGISTRY, Primitive

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "highlevel"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = [
    path for folder in ("highlevel", "converters", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]

# Each part of the package imports parts of earlier stages only. A new part finds its place here first.
STAGES: list[set[str]] = [
    {"errors"},
    {"ir", "config", "serialization", "formats"},
    {"backends"},
    {"ops", "data", "dtype_policies"},
    {"random"},
    {"initializers", "regularizers", "constraints", "activations", "utils"},
    {"layers"},
    {"training"},
    {"models"},
    {"zoo"},
    {"transfer"},
    {"diagnostics", "demo", "inspection"},
    {"cli"},
]
STAGE = {part: i for i, parts in enumerate(STAGES) for part in parts}
# Imports inside of functions that go the other way, each for a reason.
LAZY = {
    ("config", "backends"): "hl.config.set_backend is where people look for it",
    ("layers", "models"): "hl.layers.Input is where Keras has it",
}
USES_BACKENDS = {"config", "diagnostics", "inspection"}  # all others reach them through the language

LONG_FILES = {  # over 500 lines
    "highlevel/layers/normalization.py": "one family",
    "highlevel/formats/pickles.py": "one virtual machine and its table of instructions",
}

# What could run code that a file brings along, or reach for things by name. (module, what) with the reason.
REVIEWED = {
    ("highlevel/__init__.py", "import_module"): "names of a fixed table, loaded when first used",
    ("highlevel/ir/sample.py", "import_module"): "oracles named in operators' records, in tests only",
    ("highlevel/backends/registry.py", "load"): "entry points: packages that the user installed",
    ("highlevel/data/decoding.py", "load"): "Pillow decodes the pixels of an image",
    ("highlevel/formats/torch_pickle.py", "load"): "our own machine, which builds arrays and containers only",
}
BANNED_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "imp"}
BANNED_FUNCTIONS = {"eval", "exec", "compile", "__import__", "import_module"}
BANNED_METHODS = {"import_module", "extractall", "system", "popen", "load"}
HARMLESS = {"platform.system"}
CODE_GENERATION = "highlevel/backends/native/"  # its `load` is an instruction that it emits, or of its own code
BANNED_KEYWORDS = {"shell", "allow_pickle"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, for_types: bool = True) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is inside of a function) for all imports of a file, relative ones resolved.

    for_types: also those that only type checkers see
    """
    package = path.relative_to(ROOT).parent.parts
    text = ast.parse(path.read_text(encoding="utf-8"))
    nested = {
        id(inner)
        for outer in ast.walk(text)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    unseen = {
        id(inner)
        for outer in ast.walk(text)
        if isinstance(outer, ast.If) and ast.unparse(outer.test) == "TYPE_CHECKING"
        for statement in outer.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(text):
        if id(node) in unseen and not for_types:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in nested
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            for alias in node.names:
                yield ".".join([*base, alias.name]), id(node) in nested


# Who imports whom ----------------------------------------------------------------------------------------------------
def test_every_part_has_its_place() -> None:
    parts = {part_of(path) for path in MODULES} - {"__init__"}
    assert parts == set(STAGE), "add new parts of the package to STAGES, and remove those that are gone"


def test_imports_point_one_way() -> None:
    wrong = []
    for path in MODULES:
        part = part_of(path)
        if part == "__init__":
            continue  # the package itself, which loads its parts lazily
        for imported, lazy in imports(path):
            words = imported.split(".")
            if words[0] != "highlevel" or len(words) < 2 or words[1] in (part, "__version__"):
                continue
            upwards = STAGE[words[1]] >= STAGE[part]
            around = words[1] == "backends" and part not in USES_BACKENDS
            if (upwards or around) and not (lazy and (part, words[1]) in LAZY):
                wrong.append(f"{name(path)} imports {imported}")
    assert not wrong


def test_the_modules_of_the_language_form_no_circle() -> None:
    """Not even through imports inside of functions."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (PACKAGE / "ir").rglob("*.py")
    }
    needs: dict[str, set[str]] = {module: set() for module in paths}
    for module, path in paths.items():
        for imported, _ in imports(path, for_types=False):
            while imported and imported not in paths:  # a name in a module, or nothing of the language
                imported = imported.rpartition(".")[0]
            if imported:
                needs[module].add(imported)
    circle: list[str] = []
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle, " imports ".join(reversed(circle))


def test_the_language_needs_numpy_only() -> None:
    outside = set()
    for path in MODULES:
        if part_of(path) == "ir":
            tests_only = path.stem == "oracles"  # functions by others, loaded when a test calls them
            outside |= {imported.split(".")[0] for imported, lazy in imports(path) if not (lazy and tests_only)}
    assert outside - set(sys.stdlib_module_names) == {"highlevel", "numpy", "ml_dtypes"}


def test_byte_formats_need_numpy_and_what_reads_bytes() -> None:
    outside = set()
    for path in MODULES:
        if part_of(path) == "formats":
            outside |= {imported.split(".")[0] for imported, _ in imports(path)}
    assert outside - set(sys.stdlib_module_names) <= {"highlevel", "numpy", "ml_dtypes", "h5py"}


# What is never called ------------------------------------------------------------------------------------------------
def dangers(path: Path) -> Iterator[tuple[str, int]]:
    for imported, _ in imports(path):
        if imported.split(".")[0] in BANNED_IMPORTS:
            yield imported.split(".")[0], 0
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in BANNED_FUNCTIONS:
            yield called.id, node.lineno
        emitted = name(path).startswith(CODE_GENERATION) and isinstance(called, ast.Attribute) and called.attr == "load"
        harmless = emitted or ast.unparse(called) in HARMLESS
        if isinstance(called, ast.Attribute) and called.attr in BANNED_METHODS and not harmless:
            yield called.attr, node.lineno
        for keyword in node.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg in BANNED_KEYWORDS and not off:
                yield str(keyword.arg), node.lineno


def test_nothing_runs_code_that_a_file_brings() -> None:
    found = {(name(path), what): line for path in MODULES for what, line in dangers(path)}
    unreviewed = [f"{path}:{line} {what}" for (path, what), line in found.items() if (path, what) not in REVIEWED]
    assert not unreviewed
    assert set(REVIEWED) <= set(found), "reviewed, and no longer there"


# Readability ---------------------------------------------------------------------------------------------------------
def test_files_are_not_long() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    too_long = {path: count for path, count in lengths.items() if count > 500}
    assert not set(too_long) - set(LONG_FILES), "split where a reader would, or have it reviewed"
    assert len(LONG_FILES) <= 6


def test_public_modules_say_what_they_are() -> None:
    silent = [
        name(path)
        for path in MODULES
        if not (path.stem.startswith("_") and path.stem != "__init__")
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def test_nothing_is_left_to_do() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "X" * 3 + ":")
    left = [name(path) for path in CODE if any(mark in path.read_text(encoding="utf-8") for mark in marks)]
    assert not left


@pytest.mark.parametrize("primitive", REGISTRY.values(), ids=lambda p: p.name)
def test_every_primitive_has_a_sample(primitive: Primitive) -> None:
    assert primitive.samples
    language = PACKAGE / "ir"
    assert (language / "primitives" / f"{primitive.family}.py").exists() or (language / primitive.family).is_dir()
    assert all("." in sample.oracle for sample in primitive.samples)


# Starting ------------------------------------------------------------------------------------------------------------
HEAVY = ("torch", "jax", "keras", "matplotlib", "h5py", "onnx", "PIL", "tqdm", "cupy", "scipy", "llvmlite", "skimage")


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_importing_loads_nothing_heavy() -> None:
    loaded = fresh("import sys, highlevel; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


def test_importing_is_quick() -> None:
    """What `import highlevel` adds to `import numpy`: processor time, which a busy machine stretches least."""
    code = "import time, numpy\nstart = time.process_time()\nimport highlevel\nprint(time.process_time() - start)"
    assert min(float(fresh(code)) for _ in range(5)) < 0.3


def test_every_public_name_is_there() -> None:
    import highlevel

    for public in highlevel.__all__:
        assert getattr(highlevel, public) is not None
    assert set(highlevel.__all__) <= set(dir(highlevel))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = highlevel.nonsense
