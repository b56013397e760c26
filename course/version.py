"""What a bug report should say about the machine and the versions."""

import importlib.metadata
import os
import platform
import subprocess

import psutil

from course.source import ROOT

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "pillow", "numpy")


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of a clone; a downloaded folder has none."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%h of %cs"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown (no git)"
    return ran.stdout.strip() if ran.returncode == 0 else "unknown (not a clone)"


def version() -> str:
    memory = psutil.virtual_memory()
    rows = {
        "commit": commit(),
        "system": f"{platform.platform()}, {platform.machine()}",
        "python": platform.python_version(),
        **{package: version_of(package) for package in PACKAGES},
        "cores": f"{psutil.cpu_count(logical=False) or '?'} ({os.cpu_count()} threads)",
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB of it free",
    }
    return "\n".join(f"{name + ':':14} {value}" for name, value in rows.items())
