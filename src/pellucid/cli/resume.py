"""What train --resume takes from the run: everything that it was told, from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import FileError, OptionError

if TYPE_CHECKING:
    from pellucid.cli.settings import Settings
    from pellucid.nn import Layer
    from pellucid.schedules import Schedule
    from pellucid.training.run_directory import Checkpoint

_MAY_DIFFER = {"data", "threads", "checkpoint_every", "strict", "epochs"}  # fit says how epochs may


@dataclass(frozen=True)
class Kept:
    """A run that is resumed.

    Args:
        out: Its folder.
        checkpoint: What its last.ckpt holds.
        told: Its settings, as config.toml has them.
    """

    out: Path
    checkpoint: Checkpoint
    told: dict[str, Any]

    @classmethod
    def read(cls, out: Path | None, config: Path | None) -> Kept:
        """Return the run in a folder.

        Args:
            out: Where the user says that it is.
            config: A file with other settings, which there must not be.

        Raises:
            FileError: Where there is none, or one that was made in Python.
        """
        from pellucid.cli.settings import parse_toml
        from pellucid.training.run_directory import RunDirectory

        if out is None:
            raise OptionError("--resume needs --out, the folder of the run to continue")
        if config is not None:
            raise OptionError("--resume takes its settings from the run; leave --config out")
        checkpoint = RunDirectory.find(out).read_checkpoint()
        told = parse_toml(checkpoint.config, f"config in {out / 'last.ckpt'}")
        if "data" not in told:
            raise FileError(f"{out} was made in Python, not by pellucid train; resume it with fit(..., resume=True)")
        return cls(out, checkpoint, told)

    def check_data(self, source: str) -> None:
        """Refuse to look for data where the run found them, but they are no more.

        Args:
            source: A known name or a path.
        """
        from pellucid.data.registry import KNOWN

        if source == self.told["data"] and source not in KNOWN and not Path(source).exists():
            raise FileError(
                f"the data of this run are not at {source} any more; give their new place: "
                f"pellucid train DATA --resume --out {self.out}"
            )

    def check_same(self, told: dict[str, Any]) -> None:
        """Refuse settings that are not those of the run, by their names on the command line.

        Args:
            told: Resolved settings.
        """
        from pellucid.training.run_directory import check_same_settings

        names = set(told) - _MAY_DIFFER
        if told["model"].endswith(".json"):  # wherever it lies; fit compares the networks
            names.remove("model")
        check_same_settings({name: told[name] for name in names}, {name: self.told.get(name) for name in names})

    def schedule(self, settings: Settings) -> Schedule:
        """Return the schedule; that of "step" stays as it was when the run began, though there may be more epochs now.

        Args:
            settings: Of this call.
        """
        from pellucid.schedules import Step

        schedule, before = settings.make_schedule(), self.checkpoint.settings.get("schedule")
        if isinstance(schedule, Step) and isinstance(before, dict) and before.get("name") == "Step":
            return Step(before.get("step_size", 0))
        return schedule

    def network(self) -> Layer:
        """Return the network, not built; the file that described it may have been changed since."""
        from pellucid.interop.model_file import check_sizes
        from pellucid.nn.spec import from_spec

        spec = self.checkpoint.settings.get("network", {})
        check_sizes(spec, sum(array.size for array in self.checkpoint.arrays.values()))
        return from_spec(spec)
