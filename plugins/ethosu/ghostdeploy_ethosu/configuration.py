"""Which Ethos-U, with which clock and memories: names of Vela's own configuration file, checked before any work.

    accelerator    system configuration         memory mode
    U55            Ethos_U55_High_End_Embedded  Shared_Sram           where nothing is said
    U65            Ethos_U65_High_End           Dedicated_Sram_384KB
    U85            Ethos_U85_SYS_DRAM_Mid       Dedicated_Sram_384KB

Vela 5.2 compiles a U55 with the memories of a U85 without a word, and its estimates are then of a system that nobody
can build. A mode with a dedicated SRAM needs a system whose other memory can be written: DRAM, not flash.
Source: `config_files/Arm/vela.ini` of ethos-u-vela 5.2.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from ghostdeploy.target import Setting

AUTOMATIC = "automatic"
ACCELERATORS = (
    "ethos-u55-128",
    "ethos-u55-32",
    "ethos-u55-64",
    "ethos-u55-256",
    "ethos-u65-256",
    "ethos-u65-512",
    "ethos-u85-128",
    "ethos-u85-256",
    "ethos-u85-512",
    "ethos-u85-1024",
    "ethos-u85-2048",
)
"""The default first."""
SYSTEMS = (
    "Ethos_U55_Deep_Embedded",
    "Ethos_U55_High_End_Embedded",
    "Ethos_U65_Embedded",
    "Ethos_U65_Mid_End",
    "Ethos_U65_High_End",
    "Ethos_U65_Client_Server",
    "Ethos_U85_SYS_Flash_Low",
    "Ethos_U85_SYS_Flash_High",
    "Ethos_U85_SYS_DRAM_Low",
    "Ethos_U85_SYS_DRAM_Mid",
    "Ethos_U85_SYS_DRAM_High",
)
_FLASH = ("Ethos_U55_", "Ethos_U65_Embedded", "Ethos_U85_SYS_Flash_")
"""Beginnings of systems whose memory beside the SRAM is flash."""
MEMORY_MODES = (
    "Sram_Only",
    "Shared_Sram",
    "Dedicated_Sram",
    "Dedicated_Sram_256KB",
    "Dedicated_Sram_384KB",
    "Dedicated_Sram_512KB",
)
_USUAL = {
    "u55": "Ethos_U55_High_End_Embedded",
    "u65": "Ethos_U65_High_End",
    "u85": "Ethos_U85_SYS_DRAM_Mid",
}


@dataclass(frozen=True, slots=True)
class Configuration:
    """What Vela compiles for."""

    accelerator: str
    system: str
    memory: str

    @classmethod
    def of(cls, settings: Mapping[str, Setting]) -> Self:
        """Returns the configuration of an export; what is not said is chosen for the accelerator.

        Raises:
            UsageError: The three do not belong together.
        """
        accelerator = str(settings.get("ethosu_accelerator", ACCELERATORS[0]))
        family = accelerator.split("-")[1]
        system = _said(settings, "ethosu_system") or _USUAL[family]
        if f"_{family.upper()}_" not in system:
            own = [name for name in SYSTEMS if f"_{family.upper()}_" in name]
            raise UsageError(
                f"{accelerator} has no system configuration {system}",
                hint=f"--ethosu-system is one of {', '.join(own)}",
            )
        flash = system.startswith(_FLASH)
        memory = _said(settings, "ethosu_memory") or ("Shared_Sram" if flash else "Dedicated_Sram_384KB")
        if flash and memory.startswith("Dedicated"):
            raise UsageError(
                f"{memory} keeps intermediate results outside the SRAM, where {system} has read-only flash",
                hint="--ethosu-memory Shared_Sram or Sram_Only, or a system with DRAM",
            )
        return cls(accelerator, system, memory)

    def __str__(self) -> str:
        return f"{self.accelerator}, {self.system}, {self.memory}"


def check_settings(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Returns the options as they are; raises `UsageError` where they do not belong together."""
    Configuration.of(settings)
    return settings


def _said(settings: Mapping[str, Setting], name: str) -> str | None:
    value = str(settings.get(name, AUTOMATIC))
    return None if value == AUTOMATIC else value
