"""Results of long steps, kept in a folder until the build is whole: who interrupts it loses one step."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ofvl_core.errors import ConfigError
from ofvl_core.files import atomic_path, write_text

Arrays = dict[str, NDArray]

SETTINGS_FILE = "settings.json"


class Steps:
    """The kept results of a build with some `settings`, text; those of other settings are thrown away."""

    def __init__(self, folder: Path, settings: str) -> None:
        """Raises ConfigError when another build works in the folder."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConfigError(f"{folder}: another build is at work there; wait for it or stop it") from None
        written = folder / SETTINGS_FILE
        self.resumed = written.exists() and written.read_text(encoding="utf-8") == settings
        if not self.resumed:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_text(written, settings)

    def close(self) -> None:
        """Let another build work in the folder."""
        os.close(self._handle)

    def once(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """What `compute` returns, or returned when it was called for that name before."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            arrays = compute()
            with atomic_path(path) as temporary:
                np.savez(temporary, **arrays)  # type: ignore[arg-type]  # its stub takes names for flags
        with np.load(path, allow_pickle=False) as held:
            return {key: held[key] for key in held.files}
