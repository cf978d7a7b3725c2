"""The weights of the frozen adapters that a study is made of: checked, copied for its workers, and read."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.disk import sha256
from sweeper.errors import SweeperError, UsageError
from sweeper.study.frozen import weights_file

if TYPE_CHECKING:
    import adapters
    from sweeper.study import Study
    from sweeper.study.schema import FrozenAdapter


def check_frozen(study: Study, backbone_fingerprint: str) -> None:
    """Refuse adapters that were trained in another backbone, of whatever shape.

    Raises:
        UsageError: with the line of the adapters.
    """
    for name, frozen in study.frozen.items():
        if frozen.backbone != backbone_fingerprint:
            raise UsageError(
                f"the adapter {name} was trained in another backbone: its fingerprint is "
                f"{frozen.backbone}, and that of {study.backbone.model} is {backbone_fingerprint}",
                study.path,
                study.line("search", "adapters"),
            )


def check_same_frozen(old: Study, new: Study) -> None:
    """Refuse a study file whose adapters have other weights than when its study began.

    Raises:
        UsageError: with the line of the adapters.
    """
    for name, frozen in new.frozen.items():
        before = old.frozen.get(name)
        if before is not None and before.part != frozen.part:
            raise UsageError(
                f"the adapter {name} has changed since the study {new.name} began: the sha256 of its weights "
                f"was {before.part.weights}, and is {frozen.part.weights}. Put the old one back, or give the "
                "study another name",
                new.path,
                new.line("search", "adapters"),
            )


def keep_frozen(study: Study, artifacts: Path) -> None:
    """Copy the adapters of a study file into the artifact folder, where every worker finds them.

    What is there and whole stays.

    Raises:
        SweeperError: a copy cannot be written.
    """
    for name, frozen in study.frozen.items():
        target = weights_file(artifacts, study.name, frozen)
        if _is_whole(target, frozen) or frozen.path is None:
            continue
        beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            content = frozen.path.read_bytes()
            if hashlib.sha256(content).hexdigest() != frozen.part.weights:
                message = f"the adapter {name} changed while the study began: run it again"
                raise SweeperError(message, frozen.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise SweeperError(f"the adapter {name} cannot be copied: {error.strerror}", target) from error


def kept_frozen(study: Study, artifacts: Path) -> dict[str, adapters.Adapter]:
    """The frozen adapters of a study out of the artifact folder, by the digest of their weights.

    Raises:
        UsageError: one is missing, or is not what the study began with.
    """
    return _read(
        study, {name: weights_file(artifacts, study.name, each) for name, each in study.frozen.items()}
    )


def named_frozen(study: Study) -> dict[str, adapters.Adapter]:
    """The frozen adapters of a study out of the folders that its file names, by the digest of their weights.

    Raises:
        UsageError: one is missing, or has changed since the file was read.
    """
    return _read(study, {name: Path(str(each.path)) for name, each in study.frozen.items()})


def _read(study: Study, files: Mapping[str, Path]) -> dict[str, adapters.Adapter]:
    import adapters

    found = {}
    for name, path in files.items():
        frozen = study.frozen[name]
        if not _is_whole(path, frozen):
            what = "is not what the study began with" if path.is_file() else "is not there"
            raise UsageError(
                f"the frozen adapter {name} {what}: run the study file again where its folder is, with the "
                "same artifact folder, and it is copied anew",
                path,
            )
        found[str(frozen.part.weights)] = adapters.load(path)
    return found


def _is_whole(path: Path, frozen: FrozenAdapter) -> bool:
    try:
        return sha256(path) == frozen.part.weights
    except OSError:
        return False
