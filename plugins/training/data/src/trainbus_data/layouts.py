"""What the folders of a data set say: which are its parts, and which its classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from trainbus_data import splits
from trainbus_data.errors import DataError
from trainbus_data.sources import check_folder, find_files, holds_files

logger = logging.getLogger("trainbus")


class Layout:
    """Files in folders: `root/CLASS/FILE`, or `root/train/CLASS/FILE` with folders beside it.

    Folders are parts where there is a folder train, and valid (val, validation) or test beside it,
    or nothing else that holds files. What is guessed from names is said once, as a warning.

    Args:
        root: the folder.
        endings: of the names of files that are taken; None for all.
        parts: whether folders may be parts; or a split makes them.
        classes: whether folders are classes.
    """

    def __init__(
        self, root: str | Path, endings: Sequence[str] | None, parts: bool, classes: bool
    ) -> None:
        self.root = check_folder(root)
        self.endings = endings
        self.classes = classes
        #: The folders that are parts, by stage; none if a split makes them.
        self.stages: dict[str, list[Path]] = self._stages() if parts else {}
        if classes:
            for folder in self.stages.get("train", [self.root]):
                if not _folders(folder):
                    raise DataError(
                        f"{folder} has no folders, which are the classes: expected "
                        f"{folder}/CLASS/FILE; or give label=, a function of a path"
                    )

    def _stages(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        rest = []
        for each in _folders(self.root):
            stage = splits.STAGES.get(each.name.lower())
            rest.append(each) if stage is None else found.setdefault(stage, []).append(each)
        if "train" not in found:
            return {}
        others = [each.name for each in rest if holds_files(each, self.endings)]
        if others and len(found) == 1:
            logger.warning(
                "%s is taken as a class, for there is %s beside it; it would be a part if there "
                "were a folder valid or test", found["train"][0], ", ".join(others[:5]),
            )  # fmt: skip
            return {}
        if others:
            logger.warning(
                "%s: %s are the parts of the data, and %s is left out (split= takes all folders)",
                self.root, ", ".join(path.name for those in found.values() for path in those),
                ", ".join(others[:5]),
            )  # fmt: skip
        return found

    def files(self, _source: object = None) -> list[Path]:
        """All files of all parts; without those of a test part that has no classes."""
        found: list[Path] = []
        for stage, folders in (self.stages or {"": [self.root]}).items():
            for folder in folders:
                files = find_files(folder, self.endings)
                if self.classes and stage == "test" and not _folders(folder):
                    logger.warning(
                        "%s: %d files in no folder of a class: they have no labels and are left "
                        "out; predictions(find_files(%r)) predicts them",
                        folder, len(files), str(folder),
                    )  # fmt: skip
                    continue
                if self.classes:
                    self._check(folder, files)
                found += files
        return found

    def _check(self, folder: Path, files: Sequence[Path]) -> None:
        """Refuse files beside the folders that are classes; say what else is odd."""
        beside = [file for file in files if file.parent == folder]
        if len(beside) == len(files):
            raise DataError(
                f"{folder}: its {len(files)} files are in no folders, which are the classes: "
                f"expected {folder}/CLASS/FILE; or give label=, a function of a path"
            )
        if beside:
            raise DataError(
                f"{beside[0]} lies beside the folders that are the classes"
                + (f", and {len(beside) - 1} others do" if len(beside) > 1 else "")
                + "; move it, or give label=, a function of a path"
            )
        ways = [file.relative_to(folder).parts[:-1] for file in files]
        if deep := next((way for way in ways if len(way) > 1), None):
            logger.warning(
                "%s: the class is the folder that a file is in, %r for %s; label=, a function of "
                "a path, says otherwise", folder, deep[-1], "/".join(deep),
            )  # fmt: skip
        full = {way[0] for way in ways}
        if empty := [each.name for each in _folders(folder) if each.name not in full]:
            logger.warning("%s: no class without files: %s", folder, ", ".join(empty[:8]))

    def split(self, drawn: splits.Split) -> splits.Split:
        """By folder; what is in train is split where there is no folder for validation."""
        if not self.stages:
            return drawn
        by_folder = splits.by_folder(self.root)

        def split(items: Sequence[Path], label: splits.Label) -> tuple[splits.Indices, ...]:
            train, valid, *test = by_folder(items, label)
            if not valid:
                inner = drawn([items[index] for index in train], label)
                train, valid = ([train[index] for index in part] for part in inner[:2])
            return (train, valid, *test)

        return split


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, but hidden ones."""
    inside = sorted(folder.iterdir())
    return [each for each in inside if each.is_dir() and not each.name.startswith(".")]
