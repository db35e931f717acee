"""Checkpoints that are written whole or not at all, and read without executing anything."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

__all__ = ["AtomicCheckpointIO", "read_checkpoint"]

_UNREADABLE = (
    "{path} cannot be read as a checkpoint: it is damaged or was not written by eisnn, and nothing "
    "in it was executed. Delete it to start from an earlier one ({reason})"
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors, numbers, strings and containers of them only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds objects that would have to be executed.
    """
    if path.is_file() and (reason := _damage(path)):
        raise ValueError(_UNREADABLE.format(path=path, reason=reason))
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message tells how to execute it all the same
        asked = re.search(r"unsupported GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}, which is no data" if asked else "not what torch writes"
        raise ValueError(_UNREADABLE.format(path=path, reason=reason)) from None
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(_UNREADABLE.format(path=path, reason=reason)) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(f"{path} holds no training state. Delete it to start from an earlier one")
    return content


def _damage(path: Path) -> str | None:
    """What is wrong with the zip archive that torch writes; torch does not check its sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except PermissionError:
        raise
    except Exception:  # a damaged archive can raise anything
        return "not a complete archive"
    return damaged and f"the checksum of {damaged} in it is wrong"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to disk, then renames: a kill leaves the old or the new."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except RuntimeError as error:  # torch's zip writer hides the reason: a full disk, usually
            raise OSError(f"could not write {target}: is the disk full? ({error})") from error
        finally:
            part.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))
