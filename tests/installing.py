"""Packages installed as pip would, for tests of plug-ins: real modules, real entry points."""

from __future__ import annotations

import sys
from pathlib import Path


class Packages:
    """Packages in a directory on the import path, until `remove`."""

    def __init__(self, directory: Path, group: str):
        self._directory, self._group = directory, group
        self._modules: list[str] = []
        sys.path.insert(0, str(directory))

    def install(self, package: str, source: str, **points: str) -> None:
        """Write a module, and a dist-info directory with these entry points beside it."""
        module = package.replace("-", "_")
        (self._directory / f"{module}.py").write_text(source)
        info = self._directory / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {module}{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{self._group}]", *lines]))
        self._modules.append(module)

    def remove(self) -> None:
        """Take them out of the import path and of what is imported."""
        sys.path.remove(str(self._directory))
        for module in self._modules:
            sys.modules.pop(module, None)
