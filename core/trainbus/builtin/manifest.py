"""Write down what a run was: `run.json` in its directory."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.events.markers import hookimpl
from trainbus.secrets import hide, hide_secrets_of
from trainbus.storage.files import make_directory, replacing
from trainbus.terminal import as_json
from trainbus.version import __version__

if TYPE_CHECKING:
    from trainbus.engine.run import Run


class Manifest:
    """Record of a fit: versions, settings, header, plugins and why, hook order, status, errors."""

    observer = True

    def __init__(self) -> None:
        self.path: Path | None = None
        self.record: dict[str, Any] = {}

    @hookimpl
    def on_run_start(self) -> None:
        """Forget an earlier run."""
        self.path = None

    @hookimpl(trylast=True, rank_zero=True)
    def on_fit_start(self, run: Run) -> None:
        """Write all that is known at the start; the run's directory is made for it."""
        import torch

        trainer = run.trainer
        self.record = {
            "status": run.status,
            "started": _now(),
            "command": hide_secrets_of(sys.argv),
            "task": run.name,
            "versions": {
                "trainbus": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "header": run.header,
            "trainer": {
                name: getattr(trainer, name)
                for name in (
                    "epochs", "max_steps", "max_time", "seed", "deterministic", "accumulate",
                    "validate_every", "limit_batches", "log_every", "overfit",
                )
            },
            "switched_off": trainer.switched_off,
            "plugins": [
                {
                    "name": each.name,
                    "version": each.version,
                    "distribution": each.distribution,
                    "source": each.source,
                    "switched on by": each.why,
                    "options": each.options,
                }
                for each in run.loaded
            ],
            "hooks": run.bus.order(),
        }  # fmt: skip
        self.path = run.dir / "run.json"
        self._write()

    @hookimpl(trylast=True, rank_zero=True)
    def on_run_end(self, run: Run, status: str) -> None:
        """Add how it ended."""
        if self.path is None:
            return
        self.record.update(
            status=status,
            ended=_now(),
            stop_reason=run.stop_reason,
            epochs=run.epoch,
            steps=run.global_step,
            skipped_steps=run.skipped_steps,
            metrics=run.last_metrics,
            errors=run.errors,
        )
        self._write()

    def _write(self) -> None:
        assert self.path is not None
        record = as_json(hide(self.record))
        make_directory(self.path.parent)  # it may have been removed while the run was at work
        with replacing(self.path) as beside:
            beside.touch(0o600)
            beside.write_text(record + "\n", "utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
